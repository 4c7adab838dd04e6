"""Colours under transparency."""

import numpy as np
import pytest
from numpy.typing import DTypeLike

from flashrib.runtime.pictures.alpha import fill_transparent


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("shape", "share"),
    [
        pytest.param((9, 13), 0.3, id="dense"),
        pytest.param((140, 7), 0.02, id="sparse-over-blocks-of-rows"),
        pytest.param((6, 80), 0.02, id="sparse-wide"),
        pytest.param((1, 9), 0.3, id="one-row"),
        pytest.param((9, 1), 0.3, id="one-column"),
    ],
)
def test_hidden_pixels_take_the_colour_of_a_nearest_visible_one(
    shape: tuple[int, int], share: float, dtype: DTypeLike
) -> None:
    random = np.random.default_rng(5)
    alpha = (random.random(shape) < share).astype(dtype)
    alpha[shape[0] // 2, shape[1] // 2] = 7
    # Every pixel has a colour of its own, so that the source can be told.
    number = np.arange(alpha.size).reshape(shape)
    pixels = np.stack([number % 251, number // 251, number * 0 + 3], axis=-1).astype(dtype)
    filled = fill_transparent(pixels, alpha)
    source = filled[..., 0].astype(int) + 251 * filled[..., 1].astype(int)
    visible = np.argwhere(alpha)
    for y, x in np.ndindex(shape):
        from_y, from_x = divmod(int(source[y, x]), shape[1])
        assert alpha[from_y, from_x]
        assert abs(from_y - y) + abs(from_x - x) == np.abs(visible - (y, x)).sum(axis=1).min()
    assert filled.dtype == dtype
    assert np.array_equal(filled[alpha > 0], pixels[alpha > 0])


@pytest.mark.parametrize("value", [pytest.param(0, id="all-hidden"), pytest.param(1, id="all-visible")])
def test_nothing_to_do(value: int) -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    assert fill_transparent(pixels, np.full((5, 6), value, np.uint8)) is pixels


def test_the_input_is_left_alone() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0, 0] = 200
    alpha = np.zeros((4, 4), np.uint8)
    alpha[0, 0] = 255
    assert np.array_equal(fill_transparent(pixels, alpha), np.full((4, 4, 3), 200))
    assert pixels.sum() == 600
