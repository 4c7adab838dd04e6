"""The square that classifiers see is that of the official evaluation."""

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.pictures.crop import square
from flashrib.runtime.pictures.picture import Picture


@pytest.mark.parametrize(
    ("height", "width", "side", "resized"),
    [
        (300, 400, 224, (341, 256)),
        (400, 300, 224, (256, 341)),
        (256, 256, 224, (256, 256)),
        (500, 700, 384, (537, 384)),
    ],
)
def test_as_torchvision_does(height: int, width: int, side: int, resized: tuple[int, int]) -> None:
    """Resize of the shorter side, the longer one truncated, bicubic; CenterCrop with rounded margins."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(pixels)
    if image.size != resized:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = round((resized[0] - side) / 2), round((resized[1] - side) / 2)
    assert np.array_equal(square(Picture(pixels), side), np.asarray(image)[top : top + side, left : left + side])


def test_sixteen_bits() -> None:
    pixels = np.full((20, 30, 3), 257 * 7, np.uint16)
    assert np.array_equal(square(Picture(pixels), 16), np.full((16, 16, 3), 7, np.uint8))
