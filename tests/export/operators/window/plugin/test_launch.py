"""The launch, against what the kernel needs: every window of every picture, every block of queries, every head."""

import pytest

from flashrib.export.operators.plugin.ptx import Kernel
from flashrib.export.operators.window.plugin.launch import launch
from flashrib.export.operators.window.plugin.layer import Layer
from flashrib.model.attention.window.tuning import Blocks

KERNEL = Kernel("k", "", 8, 12345)


@pytest.mark.parametrize(
    ("batch", "height", "width", "window", "queries", "blocks"),
    [
        (1, 8, 8, (8, 8), 64, 1),
        (2, 9, 8, (8, 8), 64, 2 * 2),
        (3, 17, 25, (4, 8), 16, 3 * 5 * 4 * 2),
        (1, 131, 97, (96, 96), 128, 4 * 72),
        (1, 5, 5, (5, 5), 16, 2),
    ],
)
def test_grid(batch: int, height: int, width: int, window: tuple[int, int], queries: int, blocks: int) -> None:
    layer = Layer(window, 6, 32, 32)
    how = launch(layer, Blocks(queries, 64, 8, 2), KERNEL, batch, height, width)
    assert how.grid == 6 * blocks
    assert (how.threads, how.shared, how.extra) == (256, 12345, (height, width))
