"""Constants of an attention layer for the GPU: position codes of the least rank that says the same, computed in float64."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from flashrib.model.rib import position_codes


def fold_rank(to_q: Tensor, to_k: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices (heads, M, R') with the same to_q @ to_k^T and R' = min(R, M).

    The bias of a head is z to_q to_k^T z^T with z (N, M), so its rank is at most M = 32, while some presets have R = 34. The singular
    value decomposition of the M x M product in the middle gives factors of that rank, of equal size on both sides.

    Args:
        to_q: (heads, M, R), float64.
        to_k: (heads, M, R), float64.
    """
    if to_q.shape[2] <= to_q.shape[1]:
        return to_q, to_k
    left, values, right = torch.linalg.svd(to_q @ to_k.mT)
    root = values.sqrt()[:, None]
    return left * root, right.mT * root


def constant_codes(
    rows: Tensor, columns: Tensor, to_q: Tensor, to_k: Tensor, multiple: int = 8
) -> tuple[Tensor, Tensor]:
    """Evaluate the position codes, see `flashrib.model.rib.position_codes`, with R completed by zeros to a multiple of `multiple`."""
    codes = position_codes(rows, columns, *fold_rank(to_q, to_k))
    missing = -codes[0].shape[-1] % multiple
    pos_q, pos_k = (pad(c, (0, missing)) for c in codes)
    return pos_q, pos_k
