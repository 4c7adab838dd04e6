"""What each program of the Hopper kernel does: items of work, their blocks of keys, and who takes which, made on the host once per
size."""

import dataclasses
import functools
import heapq

import numpy as np

from flashrib.model.attention.disc.blocks import Ints, Side, _distances, cells

GROUP = 2  # tiles of an item of work
SIDE = 8  # of a tile and of a block of keys, in tokens
BLOCK = SIDE * SIDE
_ITEM = 2  # cost of an item beside its blocks, in blocks: its queries and results


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Work of all programs.

    Attributes:
        work: (items, 2): group of tiles, or -1 - group of text queries; picture * heads + head.
        schedule: (programs + 1), where each program's items begin in `work`.
        meta: (groups, 8): where a group's blocks begin in `entries`, how many no tile must mask, how many follow, and for each of
            its tiles how many of these it needs.
        entries: blocks as row/8 << 20 | column/8 << 8 | bits of the tiles that need it.
    """

    work: Ints
    schedule: Ints
    meta: Ints
    entries: Ints


@functools.lru_cache(maxsize=32)
def groups_of_blocks(grid: Side, radius: int) -> tuple[Ints, Ints]:
    """Return `meta` and `entries` for groups of `GROUP` tiles, row by row."""
    limit = radius * radius
    least_y, most_y = _distances(grid[0], SIDE, SIDE)
    least_x, most_x = _distances(grid[1], SIDE, SIDE)
    inside_y = (np.arange(least_y.shape[1]) + 1) * SIDE <= grid[0]
    inside_x = (np.arange(least_x.shape[1]) + 1) * SIDE <= grid[1]
    tiles = least_x.shape[0]
    bits = 1 << np.arange(GROUP)
    entries, meta, start = [], [], 0
    for row in range(least_y.shape[0]):
        near = np.flatnonzero(least_y[row] < limit)
        for first in range(0, tiles, GROUP):
            mine = slice(first, min(first + GROUP, tiles))
            across = np.flatnonzero((least_x[mine] < limit).any(0))
            needed = least_y[row, near][None, :, None] + least_x[mine][:, None, across] < limit
            whole = most_y[row, near][None, :, None] + most_x[mine][:, None, across] < limit
            clean = whole.all(0) & inside_y[near][:, None] & inside_x[across]
            masked = needed.any(0) & ~clean
            wanted = (needed * bits[: len(needed), None, None]).sum(0)
            code = (near[:, None] << 20) | (across << 8) | wanted
            common = masked & needed.all(0)
            order = [code[clean], code[common], code[masked & ~common]]
            entries += order
            active = np.zeros(GROUP, np.int64)
            active[: len(needed)] = (needed & masked).sum((1, 2))
            counts = [start, int(clean.sum()), int(masked.sum()), *active.tolist(), 0, 0, 0]
            meta.append(counts)
            start += counts[1] + counts[2]
    return np.array(meta, np.int32), np.concatenate(entries).astype(np.int32)


@functools.lru_cache(maxsize=32)
def make_schedule(
    grid: Side,
    text: int,
    radius: int,
    pooled: int,
    batch: int,
    heads: int,
    programs: int,
    rows: Side | None = None,
    text_keys: int | None = None,
) -> Schedule:
    """Give each item to the program that has least to do so far: text first, which takes longest, then head after head.

    Args:
        grid: (H, W) in tokens, each up to 16376.
        text: number of text tokens.
        radius: of the disc.
        pooled: number of pooled keys.
        batch: pictures.
        heads: heads.
        programs: number of programs.
        rows: first and last + 1 row of the queries that are wanted; None: all.
        text_keys: number of keys of a text query; None: all tokens.
    """
    meta, entries = groups_of_blocks(grid, radius)
    text_rows = cells(text, BLOCK * GROUP)
    text_cost = cells(text + grid[0] * grid[1] if text_keys is None else text_keys, BLOCK) + _ITEM
    columns = cells(grid[1], SIDE * GROUP)
    first, last = (0, grid[0]) if rows is None else rows
    wanted = range(first // SIDE * columns, cells(last, SIDE) * columns)
    costs = (meta[:, 1] + meta[:, 2] + cells(text, BLOCK) + cells(pooled, BLOCK) + _ITEM).tolist()
    items = [(text_cost, -1 - g, where) for where in range(batch * heads) for g in range(text_rows)]
    items += [(costs[g], g, where) for where in range(batch * heads) for g in wanted]
    taken: list[list[tuple[int, int]]] = [[] for _ in range(programs)]
    loads = [(0, program) for program in range(programs)]
    for cost, index, where in items:
        load, program = loads[0]
        taken[program].append((index, where))
        heapq.heapreplace(loads, (load + cost, program))
    schedule = np.cumsum([0, *map(len, taken)]).astype(np.int32)
    work = np.array([item for items in taken for item in items], np.int32).reshape(-1, 2)
    return Schedule(work, schedule, meta, entries)
