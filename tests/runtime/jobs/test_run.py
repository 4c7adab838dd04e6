"""Counting tiles; what runs the jobs is tested with the command, in tests/runtime/cli."""

import pytest

from flashrib.runtime.jobs.picture import TileCount


@pytest.mark.parametrize(
    ("reports", "tiles"),
    [
        ((0, 10, 20), 2),
        ((0, 10, 20, 0, 5, 10, 15, 20, 20, 40), 5),
        ((0, 10, 20, 30, 20, 25, 28, 30), 5),
        ((0, 10, 20, 10, 10, 20, 20, 30), 3),
        ((0,), 0),
    ],
    ids=["once", "from the beginning", "below what is written", "with colour and alpha", "none"],
)
def test_tiles_of_the_result_are_counted(reports: tuple[int, ...], tiles: int) -> None:
    count = TileCount()
    for done in reports:
        count.report(done)
    assert count.tiles == tiles
