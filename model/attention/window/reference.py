"""`window_attention` as its definition reads: scores, softmax, product. Any dtype, differentiable, memory quadratic in the window."""

import torch
from torch import Tensor

from flashrib.model.attention.window.extras import biased, gated
from flashrib.model.attention.window.geometry import merge, pad_and_roll, split_heads
from flashrib.model.config import Window


def window_attention_reference(
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
    maps = split_heads(pad_and_roll(biased(qkv, qkv_bias), window, shift), window, num_heads)
    q, k, v = maps.flatten(1, 3).flatten(3, 4)  # (windows, heads, N, D)
    scores = q @ k.transpose(-1, -2) + pos_q @ pos_k.transpose(-1, -2)  # (windows, heads, N, N)
    out = torch.softmax(scores, dim=-1) @ v
    return gated(merge(out, window, shift, (qkv.shape[1], qkv.shape[2])), gate, gate_bias)
