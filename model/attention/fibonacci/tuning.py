"""How the fused kernel cuts a layer, as data: by the number of tokens.

Measured on an H100 (`benchmarks/sparse_attention.py --operator offset`; figures in BENCHMARKS.md); other GPUs take the same rows,
**reasoned, not measured**: the kernel needs no matrix units and 2 KB of shared memory at most.
"""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Tiles:
    """How the kernel cuts a layer.

    Attributes:
        queries: queries of a block (BM).
        blocks: blocks of a program.
        warps: warps of a program.
        apart: the class token's row has launches of its own; else every program computes its part of it. Under zero_logit it always has,
            where a head has several programs, since all need the sums of v before they begin.
    """

    queries: int
    blocks: int
    warps: int
    apart: bool = False


# (least tokens, tiles), ascending; the last row that fits counts.
TABLE: tuple[tuple[int, Tiles], ...] = (
    (0, Tiles(16, 4, 4)),
    (400, Tiles(32, 2, 4)),
    (8000, Tiles(64, 2, 16, apart=True)),
)
CLASS_BLOCK = 64  # keys of a block of the class token's row
CLASS_KEYS = 512  # keys of a part of it, where it has launches of its own
CLASS_STAGES, CLASS_WARPS = 2, 4  # blocks in flight, warps of a program
MERGE_BLOCK, MERGE_WARPS = 4, 1  # parts of the row that are put together at a time


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


def span_of(tiles: Tiles) -> int:
    """Patch queries of a program."""
    return tiles.queries * tiles.blocks


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is launched for a layer.

    Attributes:
        tiles: how it is cut.
        chunks: programs of a head.
        first: what becomes of the class token's row: "whole" (each program has a whole head), "part" (each program computes its part,
            which `merge_kernel` puts together afterwards), or "none" (launches of its own, before).
        parts: parts of that row, 0 under "whole".
    """

    tiles: Tiles
    chunks: int
    first: Literal["whole", "part", "none"]
    parts: int


def plan_of(tokens: int, head_dim: int, zero_logit: bool, element_size: int = 2) -> Plan:
    """What is launched for a layer; arguments as of `tiles_for`."""
    tiles = tiles_for(tokens, head_dim, element_size)
    chunks = -(-(tokens - 1) // span_of(tiles))
    if chunks == 1:
        return Plan(tiles, chunks, "whole", 0)
    if zero_logit or tiles.apart:  # under zero_logit every program needs the sums of v before it begins
        return Plan(tiles, chunks, "none", -(-tokens // CLASS_KEYS))
    return Plan(tiles, chunks, "part", chunks)


BACKWARD_WARPS = 8


def backward_rows(tokens: int, head_dim: int) -> tuple[int, int]:
    """Tokens of a program of the two kernels of the backward pass: that which prepares and that which owns patches.

    Reasoned, and no others were tried: a thread holds 8 values of each block that the second kernel keeps.

    Args:
        tokens: N + 1.
        head_dim: channels D of a head.
    """
    width, most = power_of_two(head_dim), power_of_two(tokens)
    return min(8192 // width, most), min(2048 // width, most)
