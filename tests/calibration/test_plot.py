import io

import numpy as np
import pytest
from PIL import Image

from flashrib.calibration.plot import SIZE, plot_curve


@pytest.mark.parametrize(
    "psnrs", [[33.62, 33.615, 33.6], [33.62, 33.62, 33.62], [33.7, 33.2, 10.0]], ids=["usual", "no loss", "collapse"]
)
def test_a_picture_with_the_curve(psnrs: list[float]) -> None:
    image = Image.open(io.BytesIO(plot_curve([0.1, 0.5, 0.9], psnrs, 33.62, 0.05, 2, "title")))
    assert image.size == SIZE
    pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x1F, 0x6F, 0xB2), (0xB2, 0x3B, 0x1F)):  # the line, and the budget
        assert (pixels == colour).all(1).sum() > 100
