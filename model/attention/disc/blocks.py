"""Which blocks of keys a tile of queries needs: lists made on the host once per size and shared by all layers.

The picture's queries are cut into tiles of TY x TX tokens and its keys into blocks of KY x KX, both from the top left corner. A block
is *full* for a tile if every query sees every key of it, and *partial* if some do. Text and pooled keys need no list: every query of
the picture sees all of them, and text queries see the first n tokens one after the other.
"""

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Side = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class BlockLists:
    """Blocks of keys of every tile of queries, tiles row-major.

    Attributes:
        starts: (tiles + 1), where each tile's blocks begin in `blocks`.
        full: (tiles), how many of them are full; these come first.
        blocks: each block as row << 16 | column of its first token.
        pairs: pairs of query and key that the blocks compute within the picture.
    """

    starts: Ints
    full: Ints
    blocks: Ints
    pairs: int


def cells(length: int, side: int) -> int:
    """Number of tiles or blocks of `side` tokens that cover `length`."""
    return -(-length // side)


def _distances(length: int, tile: int, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Least and largest squared distance along one axis between the tokens of each tile and of each block, (tiles, blocks)."""
    first = np.arange(0, length, tile)[:, None]
    last = np.minimum(first + tile, length) - 1
    key_first = np.arange(0, length, block)[None]
    key_last = np.minimum(key_first + block, length) - 1
    least = np.maximum(0, np.maximum(key_first - last, first - key_last))
    most = np.maximum(np.abs(key_last - first), np.abs(last - key_first))
    return least.astype(np.int64) ** 2, most.astype(np.int64) ** 2


@functools.lru_cache(maxsize=64)
def block_lists(grid: Side, radius: int, tile: Side, block: Side) -> BlockLists:
    """Return the lists for a grid of (H, W) tokens, at most 32767 each way.

    Args:
        grid: (H, W) in tokens.
        radius: of the disc; a key at a distance strictly below it is seen.
        tile: (TY, TX) of the queries.
        block: (KY, KX) of the keys.
    """
    limit = radius * radius
    least_y, most_y = _distances(grid[0], tile[0], block[0])
    least_x, most_x = _distances(grid[1], tile[1], block[1])
    # blocks that reach beyond the picture are never full: their tokens outside must be masked
    inside_y = (np.arange(least_y.shape[1]) + 1) * block[0] <= grid[0]
    inside_x = (np.arange(least_x.shape[1]) + 1) * block[1] <= grid[1]
    starts, full, blocks = [0], [], []
    for row in range(least_y.shape[0]):
        near = np.flatnonzero(least_y[row] < limit)
        for column in range(least_x.shape[0]):
            across = np.flatnonzero(least_x[column] < limit)
            needed = least_y[row, near][:, None] + least_x[column, across] < limit
            whole = most_y[row, near][:, None] + most_x[column, across] < limit
            whole &= inside_y[near][:, None] & inside_x[across]
            code = (near[:, None] * block[0] << 16) | (across * block[1])
            blocks += [code[whole], code[needed & ~whole]]
            full.append(int(whole.sum()))
            starts.append(starts[-1] + int(needed.sum()))
    flat = np.concatenate(blocks).astype(np.int32)
    pairs = len(flat) * tile[0] * tile[1] * block[0] * block[1]
    return BlockLists(np.array(starts, np.int32), np.array(full, np.int32), flat, pairs)


def needed_pairs(grid: Side, text: int, radius: int, pooled: int = 0) -> int:
    """Pairs of query and key that the definition keeps, exactly."""
    height, width = grid
    reach = np.arange(-radius + 1, radius)
    disc = reach[:, None] ** 2 + reach[None] ** 2 < radius * radius
    counts = np.maximum(height - np.abs(reach), 0)[:, None] * np.maximum(width - np.abs(reach), 0)[None]
    n = text + height * width
    return int((disc * counts).sum()) + text * n + height * width * (text + pooled)
