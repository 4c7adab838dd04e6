"""Position codes as GPU kernels want them: the same bias from codes of a width that they multiply anyway."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from flashrib.model.attention.window.tuning import power_of_two
from flashrib.model.rib import position_codes


def constant_codes(rows: Tensor, columns: Tensor, to_q: Tensor, to_k: Tensor) -> tuple[Tensor, Tensor]:
    """Position codes with the same bias, of the least memory for the channels that the kernel multiplies, a power of two.

    The bias of a head is z to_q to_k^T z^T with z (N, M). Where the kernel takes M channels or more anyway, z itself is the code of
    the keys, one for all heads, and z to_q to_k^T that of the queries: about half of the constants, also where R is above M (34 and 32
    in some presets). Rounded to 16 bits the bias comes out as exact as from the codes of `position_codes`.

    Args:
        rows: (Wh, M), see `flashrib.model.rib.position_codes`.
        columns: (Ww, M).
        to_q: (heads, M, R).
        to_k: (heads, M, R).

    Returns:
        pos_q (heads, N, R') and pos_k (heads, N, R') or (1, N, R'), R' = a power of two, padded by zeros.
    """
    hidden, rank = to_q.shape[1:]
    if power_of_two(rank) >= hidden:
        to_q, to_k = to_q @ to_k.mT, torch.eye(hidden, dtype=to_k.dtype, device=to_k.device)[None]
    codes = position_codes(rows, columns, to_q, to_k)
    missing = power_of_two(codes[0].shape[-1]) - codes[0].shape[-1]
    pos_q, pos_k = (pad(c, (0, missing)) for c in codes)
    return pos_q, pos_k
