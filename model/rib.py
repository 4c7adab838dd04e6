"""Rank-factorized implicit neural bias: coordinates of a window -> position codes (arXiv 2603.06738), in the official order of operations.

The bias of head a between tokens n and m of a window is <pos_q[a, n], pos_k[a, m]>, with

    z = relu(phi @ to_hidden + hidden_b)        (N, M)      phi: coordinate features of the N tokens, (N, 2 + 4L)
    pos_q[a] = R^-1/2 * z @ to_q[a]             (N, R)      pos_k[a] = z @ to_k[a]

phi interleaves the features of X (even columns) and of Y (odd columns), and X depends on the column of a token alone, Y on its row.
So phi @ to_hidden is a sum of a term per column and a term per row, and two small tables replace the N feature vectors.
"""

import torch
from torch import Tensor


def coordinate_features(side: int, freqs: int) -> Tensor:
    """Features of one axis of a window: X, sin(X), cos(X), sin(2X), cos(2X), ..., sin(2^(L-1) X), cos(2^(L-1) X).

    X = 2 (i + 0.5) / side - 1 for i = 0..side-1, in float32 and in this order of operations: X is multiplied by up to 512 before the
    sine, so the rounding of X shows at the level of 3e-5 for sides that are not powers of two.

    Args:
        side: window side along the axis, in tokens.
        freqs: number L of octaves, >= 0.

    Returns:
        (side, 1 + 2L), float32.
    """
    index = torch.arange(side, dtype=torch.float32)
    x = (2.0 * (index + 0.5) / side) - 1.0
    features = [x]
    for octave in range(freqs):
        scaled = x * 2.0**octave
        features += [scaled.sin(), scaled.cos()]
    return torch.stack(features, dim=1)


def position_codes(rows: Tensor, columns: Tensor, to_q: Tensor, to_k: Tensor) -> tuple[Tensor, Tensor]:
    """Position codes of a window from the hidden terms of its rows and columns.

    Args:
        rows: (Wh, M), hidden term of each row (the bias of the hidden layer may be in either of the two).
        columns: (Ww, M), hidden term of each column.
        to_q: (heads, M, R), already multiplied by R^-1/2.
        to_k: (heads, M, R).

    Returns:
        pos_q and pos_k, each (heads, Wh*Ww, R), tokens row-major.
    """
    hidden = torch.relu(rows[:, None, :] + columns[None, :, :]).flatten(0, 1)  # (N, M)
    return hidden @ to_q, hidden @ to_k
