"""`window_attention` through PyTorch's fused attention: linear memory on the CPU and on the GPU, differentiable.

The position codes become extra channels of q and k, and v gets as many zero channels: with head sizes that differ, PyTorch's CPU
kernel falls back to the quadratic form.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.attention.window.extras import biased, gated
from flashrib.model.attention.window.geometry import merge, pad_and_roll, split_heads
from flashrib.model.config import Window


def window_attention_sdpa(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    window: Window,
    num_heads: int,
    shift: Window,
    *,
    qkv_bias: Tensor | None = None,
    gate: Tensor | None = None,
    gate_bias: Tensor | None = None,
) -> Tensor:
    """See `flashrib.model.attention.window.window_attention`."""
    maps = pad_and_roll(biased(qkv, qkv_bias), window, shift)
    q, k, v = split_heads(maps, window, num_heads)  # views, (B, rows, columns, heads, Wh, Ww, D)
    head_dim, rank = q.shape[-1], pos_q.shape[-1]

    def with_codes(x: Tensor, codes: Tensor) -> Tensor:  # (windows, heads, N, D + R), the one copy that is made
        codes = codes.to(x.dtype).reshape(-1, *window, rank).expand(*x.shape[:-1], rank)
        return torch.cat([x, codes], dim=-1).flatten(0, 2).flatten(2, 3)

    v = F.pad(v, (0, rank)).flatten(0, 2).flatten(2, 3)
    out = F.scaled_dot_product_attention(with_codes(q, pos_q), with_codes(k, pos_k), v, scale=1.0)[..., :head_dim]
    return gated(merge(out, window, shift, (qkv.shape[1], qkv.shape[2])), gate, gate_bias)
