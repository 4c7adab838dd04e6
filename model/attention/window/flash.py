"""`window_attention` through the `flash-attn` package, where it is installed: 16 bit, on a GPU that the package supports.

Neither FlashAttention 2 nor 3 takes a v narrower than q and k, so v gets zero channels, as in the official code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.attention.window.extras import biased, gated
from flashrib.model.attention.window.geometry import merge, pad_and_roll, split_heads
from flashrib.model.config import Window


def window_attention_flash(
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
    """See `flashrib.model.attention.window.window_attention`; float16 and bfloat16 only."""
    from flash_attn import flash_attn_func

    q, k, v = split_heads(
        pad_and_roll(biased(qkv, qkv_bias), window, shift), window, num_heads
    )  # (B, rows, columns, heads, Wh, Ww, D) each
    head_dim, rank = q.shape[-1], pos_q.shape[-1]

    def tokens_first(x: Tensor) -> Tensor:  # (windows, N, heads, channels), as the package wants it
        return x.flatten(0, 2).flatten(2, 3).transpose(1, 2)

    def with_codes(x: Tensor, codes: Tensor) -> Tensor:
        codes = codes.to(x.dtype).reshape(-1, *window, rank).expand(*x.shape[:-1], rank)
        return tokens_first(torch.cat([x, codes], dim=-1))

    v = tokens_first(F.pad(v, (0, rank)))
    out: Tensor = flash_attn_func(with_codes(q, pos_q), with_codes(k, pos_k), v, softmax_scale=1.0)
    merged = merge(out[..., :head_dim].transpose(1, 2).contiguous(), window, shift, (qkv.shape[1], qkv.shape[2]))
    return gated(merged, gate, gate_bias)
