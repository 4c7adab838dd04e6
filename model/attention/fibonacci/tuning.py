"""How the fused kernel cuts a layer, as data: by the number of tokens.

Measured on an H100 (`benchmarks/sparse_attention.py --operator offset --tune`; figures in BENCHMARKS.md); other GPUs take the same rows,
**reasoned, not measured**: the kernel needs no matrix units and 2 KB of shared memory at most.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How the kernel cuts a layer.

    Attributes:
        queries: queries of a block (BM).
        blocks: blocks of a program (TILES), 0 for all of a head.
        warps: warps of a program.
        keys: keys of a block of the class token's query (BN).
        stages: such blocks in flight.
        packed: products with v in 16 bit.
    """

    queries: int
    blocks: int
    warps: int
    keys: int = 64
    stages: int = 1
    packed: bool = True


# (least tokens, tiles), ascending; the last row that fits counts.
TABLE: tuple[tuple[int, Tiles], ...] = (
    (0, Tiles(32, 0, 4)),
    (1000, Tiles(64, 4, 8)),
)
CLASS_KEYS = 512  # keys of a part of the class token's row where zero_logit needs the sums of v first


def tiles_for(tokens: int, head_dim: int, element_size: int = 2) -> Tiles:
    """Tiles of a layer.

    Args:
        tokens: N + 1.
        head_dim: channels D of a head; twice as many leave room for half the queries.
        element_size: bytes of an element, 2 or 4.
    """
    tiles = [row for least, row in TABLE if tokens >= least][-1]
    width = power_of_two(head_dim) * (2 if element_size == 4 else 1)
    queries = max(16, tiles.queries * 64 // max(width, 64))
    return dataclasses.replace(tiles, queries=queries)


def power_of_two(width: int, least: int = 16) -> int:
    """Smallest power of two >= `width` and >= `least`: what the kernel's blocks are made of."""
    return max(least, 1 << (width - 1).bit_length())


def span_of(tokens: int, tiles: Tiles) -> int:
    """Patch queries of a program: a multiple of `tiles.queries`, all of a head where `tiles.blocks` is 0."""
    return tiles.queries * (tiles.blocks or -(-(tokens - 1) // tiles.queries))
