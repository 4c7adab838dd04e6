"""`window_attention` through the package `flash-attn`, or `flash-attn-4`, where one is installed: 16 bit, on a GPU that it supports.

FlashAttention 2 and 3 take no v narrower than q and k, so v gets zero channels, as in the official code; and 4 takes multiples of 8
channels alone, so all three get zeros up to one.
"""

from typing import Any

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
    q, k, v = split_heads(
        pad_and_roll(biased(qkv, qkv_bias), window, shift), window, num_heads
    )  # (B, rows, columns, heads, Wh, Ww, D) each
    rank = pos_q.shape[-1]

    def tokens_first(x: Tensor) -> Tensor:  # (windows, N, heads, channels), as the package wants it
        return x.flatten(0, 2).flatten(2, 3).transpose(1, 2)

    def with_codes(x: Tensor, codes: Tensor) -> Tensor:
        codes = codes.to(x.dtype).reshape(-1, *window, rank).expand(*x.shape[:-1], rank)
        return tokens_first(torch.cat([x, codes], dim=-1))

    out = flash_attention(with_codes(q, pos_q), with_codes(k, pos_k), tokens_first(v))
    merged = merge(out.transpose(1, 2).contiguous(), window, shift, (qkv.shape[1], qkv.shape[2]))
    return gated(merged, gate, gate_bias)


def flash_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of windows by the package, whichever version is installed; the scores are q k^T as they are.

    Args:
        q: (windows, tokens, heads, channels), float16 or bfloat16.
        k: the same.
        v: (windows, tokens, heads, D), D at most the channels of q.

    Returns:
        (windows, tokens, heads, D).

    Raises:
        ImportError: none is installed.
    """
    width = -(-q.shape[-1] // 8) * 8
    filled = (F.pad(x, (0, width - x.shape[-1])) for x in (q, k, v))
    result = _package()(*filled, softmax_scale=1.0)
    out: Tensor = result[0] if isinstance(result, tuple) else result  # version 4 gives the log-sum-exp as well
    return out[..., : v.shape[-1]]


def _package() -> Any:
    """Return `flash_attn_func` of version 2 or 3; or of 4, whose package has nothing but a folder of its own."""
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        from flash_attn.cute import flash_attn_func
    return flash_attn_func
