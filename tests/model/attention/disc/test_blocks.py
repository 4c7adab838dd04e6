"""Lists of blocks and schedules cover what the definition keeps, each pair once."""

import numpy as np
import pytest
import torch

from flashrib.model.attention.disc import disc_mask
from flashrib.model.attention.disc.blocks import block_lists, needed_pairs
from flashrib.model.attention.disc.schedule import GROUP, groups_of_blocks, make_schedule

CASES = [
    ((9, 13), 4, (8, 8), (8, 8)),
    ((37, 53), 8, (8, 16), (4, 8)),
    ((24, 40), 16, (8, 8), (8, 8)),
    ((5, 3), 9, (4, 4), (4, 4)),
]


@pytest.mark.parametrize(("grid", "radius", "tile", "block"), CASES)
def test_lists_cover_the_disc(
    grid: tuple[int, int], radius: int, tile: tuple[int, int], block: tuple[int, int]
) -> None:
    height, width = grid
    lists = block_lists(grid, radius, tile, block)
    wanted = disc_mask(grid, 0, radius).reshape(height, width, height, width)
    seen = torch.zeros_like(wanted, dtype=torch.int32)
    columns = -(-width // tile[1])
    for index in range(len(lists.full)):
        y, x = index // columns * tile[0], index % columns * tile[1]
        begin, end = lists.starts[index : index + 2]
        for number, code in enumerate(lists.blocks[begin:end].tolist()):
            row, column = code >> 16, code & 0xFFFF
            part = (
                slice(y, y + tile[0]),
                slice(x, x + tile[1]),
                slice(row, row + block[0]),
                slice(column, column + block[1]),
            )
            seen[part] += 1
            assert wanted[part].any()
            if number < lists.full[index]:
                assert wanted[part].all()
                assert row + block[0] <= height
                assert column + block[1] <= width
    assert seen.max() == 1
    assert (seen[wanted] == 1).all()


@pytest.mark.parametrize(("grid", "radius"), [((9, 13), 4), ((37, 53), 8), ((24, 40), 16)])
def test_groups_cover_the_disc(grid: tuple[int, int], radius: int) -> None:
    height, width = grid
    meta, entries = groups_of_blocks(grid, radius)
    wanted = disc_mask(grid, 0, radius).reshape(height, width, height, width)
    seen = torch.zeros_like(wanted, dtype=torch.int32)
    columns = -(-width // (8 * GROUP))
    for index, (start, clean, masked, *active) in enumerate(meta.tolist()):
        counted = [0, 0]
        for number, code in enumerate(entries[start : start + clean + masked].tolist()):
            row, column = (code >> 20) * 8, ((code >> 8) & 0xFFF) * 8
            for i in range(GROUP):
                y, x = index // columns * 8, (index % columns * GROUP + i) * 8
                part = (slice(y, y + 8), slice(x, x + 8), slice(row, row + 8), slice(column, column + 8))
                if number < clean:
                    assert wanted[part].all()
                elif code >> i & 1:
                    assert wanted[part].any()
                    counted[i] += 1
                if number < clean or code >> i & 1:
                    seen[part] += 1
        assert counted == active[:2]
    assert seen.max() == 1
    assert (seen[wanted] == 1).all()


def test_schedule_gives_out_every_item_once_and_evenly() -> None:
    plan = make_schedule((24, 40), 100, 8, 0, 2, 3, 7)
    items = [tuple(item) for item in plan.work.tolist()]
    groups = len(plan.meta)
    assert groups == 3 * 3
    assert sorted(items) == sorted((g, where) for where in range(6) for g in (-1, *range(groups)))
    counts = np.diff(plan.schedule)
    assert plan.schedule[-1] == len(items)
    assert counts.min() >= 1


def test_pairs_are_those_of_the_mask() -> None:
    for grid, text, radius, pooled in [((9, 13), 5, 4, 0), ((8, 12), 16, 20, 6)]:
        assert needed_pairs(grid, text, radius, pooled) == int(disc_mask(grid, text, radius, pooled).sum())


def test_schedule_of_a_band_has_only_its_rows() -> None:
    plan = make_schedule((40, 24), 100, 8, 0, 1, 1, 3, (12, 24), 64 + 12 * 24)
    assert sorted(group for group, _ in plan.work.tolist()) == [-1, 2, 3, 4, 5]  # two groups in a row of tiles
