"""Which tokens a head of Fibottention sees: Wythoff rows, cut by a window of its own for each head, shuffled over the layers.

Row i = 1, 2, ... of the table starts with a = floor(i*phi) + i - 1 and b = a + floor(i*phi), phi the golden ratio, and goes on as Fibonacci
numbers do; the modified form begins two terms earlier, with i - 1 and floor(i*phi). The first term stays whatever the window says, each
further one while it is at most the window. Source: arXiv 2406.19391 and the official code at commit adf9919; see `docs/fibottention.md`.
"""

import math
import random
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from flashrib.runtime.errors import UsageError

Variant = Literal["standard", "modified"]
Order = Literal["depth", "depth0", "none"]
Spread = Literal["third", "full"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
ORDERS: tuple[Order, ...] = get_args(Order)
SPREADS: tuple[Spread, ...] = get_args(Spread)

LEAST_WINDOW = 5  # of the first head, in the official code


def head_windows(patches: int, heads: int, spread: Spread = "third") -> list[int]:
    """Largest offset w_i of each row i before the shuffle.

    Args:
        patches: patch tokens N.
        heads: heads h.
        spread: "third" goes from 5 to N//3 evenly, "full" gives every row N.
    """
    if spread == "full":
        return [patches] * heads
    step = (patches // 3 - LEAST_WINDOW) / max(heads - 1, 1)
    # in float64 and truncated, as the official code does: 24 heads at N = 777 depend on it
    return [LEAST_WINDOW + int(step * i) for i in range(heads)]


def row_offsets(row: int, window: int, variant: Variant = "standard") -> list[int]:
    """Offsets of row `row` (from 1) in the order of the sequence; a modified first row has 1 twice."""
    lower = (row + math.isqrt(5 * row * row)) // 2  # floor(row * phi)
    x, y = (lower + row - 1, 2 * lower + row - 1) if variant == "standard" else (row - 1, lower)
    offsets = [x]
    while y <= window:
        offsets.append(y)
        x, y = y, x + y
    return offsets


def head_order(heads: int, depth: int, order: Order) -> list[int]:
    """Row (from 0) that each head of the layer `depth` (from 0) takes.

    "depth" shuffles with the layer's number as the seed, "depth0" gives every layer the order of layer 0, "none" leaves the rows alone.
    """
    rows = list(range(heads))
    if order != "none":
        random.Random(depth if order == "depth" else 0).shuffle(rows)
    return rows


def head_offsets(
    patches: int, heads: int, depth: int, order: Order, variant: Variant = "standard", spread: Spread = "third"
) -> list[list[int]]:
    """Offsets of each head of a layer: ascending, each once, those that no pair of the N patches can have left out.

    Args:
        patches: patch tokens N, without the class token.
        heads: heads h.
        depth: number of the layer, from 0.
        order: see `head_order`.
        variant: "standard" or "modified".
        spread: see `head_windows`.
    """
    for name, value, known in (("order", order, ORDERS), ("variant", variant, VARIANTS), ("spread", spread, SPREADS)):
        if value not in known:
            raise UsageError(f"unknown {name} {value!r} of offsets: choose one of {', '.join(known)}")
    if patches < 1 or heads < 1:
        raise UsageError(f"offsets need at least one patch and one head, not {patches} and {heads}")
    windows = head_windows(patches, heads, spread)
    rows = [row_offsets(i + 1, windows[i], variant) for i in range(heads)]
    return [sorted({o for o in rows[row] if o < patches}) for row in head_order(heads, depth, order)]


def pack_offsets(offsets: Sequence[Sequence[int]], patches: int) -> Tensor:
    """Put lists of offsets into the operator's form: (heads, M) int32, rows filled up with N, which no pair has; M is at least 1."""
    width = max(1, *map(len, offsets))
    return torch.tensor([[*row, *[patches] * (width - len(row))] for row in offsets], dtype=torch.int32)


def support(offsets: Tensor, tokens: int) -> Tensor:
    """Pairs that are kept: (heads, tokens, tokens) bool, row = query, token 0 the class token, which sees and is seen by all.

    Args:
        offsets: (heads, M) integers, as `pack_offsets` makes them.
        tokens: N + 1.
    """
    patch = torch.arange(1, tokens, device=offsets.device)
    distance = (patch[:, None] - patch[None, :]).abs()
    kept = torch.ones(offsets.shape[0], tokens, tokens, dtype=torch.bool, device=offsets.device)
    kept[:, 1:, 1:] = (distance[None, None] == offsets[:, :, None, None]).any(1)
    return kept
