"""`offset_attention` as its definition reads: all scores, the mask, softmax, product. Any dtype, differentiable, quadratic memory."""

import torch
from torch import Tensor

from flashrib.model.attention.fibonacci.offsets import support


def offset_attention_reference(qkv: Tensor, offsets: Tensor, num_heads: int, mask_mode: str) -> Tensor:
    """See `flashrib.model.attention.fibonacci.offset_attention`."""
    batch, tokens, channels = qkv.shape
    q, k, v = qkv.view(batch, tokens, 3, num_heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, N+1, D) each
    scores = q @ k.transpose(-1, -2)
    if mask_mode != "dense":
        left_out = ~support(offsets, tokens)
        scores = scores.masked_fill(left_out, 0.0 if mask_mode == "zero_logit" else -torch.inf)
    out: Tensor = torch.softmax(scores, dim=-1) @ v
    return out.transpose(1, 2).reshape(batch, tokens, channels // 3)
