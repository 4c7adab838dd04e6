"""Exact merging of attentions over disjoint sets of keys by their log-sum-exps."""

import torch
from torch import Tensor


def merge_attention(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """Return the attention over the union of R disjoint sets of keys.

    Args:
        outs: (R, B, M, h, D), attention over each set.
        lses: (R, B, h, M), natural logarithms of the sums of exponentials; -inf for an empty set.

    Returns:
        out (B, M, h, D) in the dtype of `outs`, lse (B, h, M).
    """
    lse = torch.logsumexp(lses, 0)
    weights = torch.exp(lses - lse).movedim(3, 2)[..., None]  # (R, B, M, h, 1)
    return (outs.to(weights.dtype) * weights).sum(0).to(outs.dtype), lse
