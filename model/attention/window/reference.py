"""`window_attention` as its definition reads: scores, softmax, product. Any dtype, differentiable, memory quadratic in the window."""

import torch
from torch import Tensor

from flashrib.model.attention.window.geometry import complete, merge, split_heads
from flashrib.model.config import Window


def window_attention_reference(
    qkv: Tensor, pos_q: Tensor, pos_k: Tensor, window: Window, num_heads: int, shift: Window
) -> Tensor:
    """See `flashrib.model.attention.window.window_attention`."""
    q, k, v = (
        split_heads(complete(qkv, window, shift), window, num_heads).flatten(1, 3).flatten(3, 4)
    )  # (windows, heads, N, D)
    scores = q @ k.transpose(-1, -2) + pos_q @ pos_k.transpose(-1, -2)  # (windows, heads, N, N)
    out = torch.softmax(scores, dim=-1) @ v
    return merge(out, window, shift, (qkv.shape[1], qkv.shape[2]))
