"""Tiles and blocks of the fused kernel, as data: per compute capability and radius.

Rows of sm_90 are measured on an H100 (`benchmarks/disc_attention.py --tune`; figures in BENCHMARKS.md); the others are **reasoned, not
measured**: without Hopper's warpgroup products, tiles of 64 queries with 4 warps and blocks of 32 keys leave room for two programs.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How the kernel cuts the picture.

    Attributes:
        tile: (TY, TX) tokens of a tile of queries; TY*TX a power of two >= 16.
        keys: (KY, KX) tokens of a block of keys; KY*KX a power of two >= 16.
        warps: warps of a program.
        stages: blocks of keys in flight.
        registers: most registers of a thread; None leaves it to the compiler.
    """

    tile: tuple[int, int]
    keys: tuple[int, int]
    warps: int
    stages: int
    registers: int | None = None


# (least radius, blocks), ascending; the last row that fits counts.
Rows = tuple[tuple[int, Blocks], ...]

_HOPPER: Rows = ((0, Blocks((8, 8), (8, 8), 4, 2)),)
_AMPERE: Rows = ((0, Blocks((8, 8), (4, 8), 4, 2)),)
_BLACKWELL_SERVER: Rows = ((0, Blocks((8, 16), (8, 8), 8, 2)),)

TABLE: dict[int, Rows] = {
    80: _AMPERE,
    86: _AMPERE,
    87: _AMPERE,
    89: _AMPERE,
    90: _HOPPER,
    100: _BLACKWELL_SERVER,
    110: _AMPERE,
    120: _AMPERE,
}


def power_of_two(width: int) -> int:
    """Smallest power of two >= `width`, at least 16: what the kernel's blocks are made of."""
    return max(16, 1 << (width - 1).bit_length())


def blocks_for(capability: int, head_dim: int, radius: int, element_size: int = 2) -> Blocks:
    """Blocks for a layer.

    Args:
        capability: compute capability, 10 * major + minor; one that is not in the table takes the nearest below.
        head_dim: channels D of a head.
        radius: of the disc in tokens.
        element_size: bytes of an element, 2 or 4.
    """
    known = max((c for c in TABLE if c <= capability), default=80)
    blocks = [b for least, b in TABLE[known] if radius >= least][-1]
    if element_size == 4 or head_dim > 128:
        return Blocks((8, 8), (4, 4), 4, min(blocks.stages, 2))  # elements twice as wide, or twice as many
    return blocks
