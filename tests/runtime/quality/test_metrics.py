"""PSNR and SSIM against their definitions and against the figures in the literature."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime.errors import UsageError
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.quality.metrics import psnr, rgb_to_y, ssim

DATA = Path(__file__).parents[4] / "shared" / "data"


def noise(seed: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("rgb", "luma"),
    [
        ((0, 0, 0), 16.0),
        ((255, 255, 255), 235.0),
        ((255, 0, 0), 81.481),
        ((0, 255, 0), 144.553),
        ((0, 0, 255), 40.966),
    ],
)
def test_luma_is_that_of_bt601(rgb: tuple[int, int, int], luma: float) -> None:
    image = np.array(rgb, np.uint8).reshape(1, 1, 3)
    assert rgb_to_y(image)[0, 0] == pytest.approx(luma, abs=1e-9)


def test_psnr_of_one_level_of_luma() -> None:
    a = np.full((8, 8, 3), 100, np.uint8)
    b = a + np.uint8(1)
    # One level of gray is 219/255 of a level of luma.
    assert psnr(a, b) == pytest.approx(20 * math.log10(255 / (219 / 255)), abs=1e-9)
    assert psnr(a[..., 0], b[..., 0]) == pytest.approx(20 * math.log10(255), abs=1e-9)


def test_psnr_of_floating_point_arrays_uses_the_peak() -> None:
    a = np.zeros((4, 4, 3), np.float32)
    assert psnr(a, a + np.float32(0.25), peak=1) == pytest.approx(20 * math.log10(4))


def test_equal_pictures() -> None:
    a = noise(1, (20, 20, 3))
    assert psnr(a, a) == math.inf
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_the_border_is_left_out(metric: Any) -> None:
    a, b = noise(1, (24, 26, 3)), noise(2, (24, 26, 3))
    assert metric(a, b, 3) == metric(a[3:-3, 3:-3], b[3:-3, 3:-3])
    assert metric(a, b, 3) != metric(a, b)


def test_ssim_equals_its_definition_window_by_window() -> None:
    a = noise(3, (14, 13, 3))
    b = np.clip(a.astype(int) + np.random.default_rng(4).integers(-30, 30, a.shape), 0, 255).astype(np.uint8)
    x, y = rgb_to_y(a), rgb_to_y(b)
    row, column = np.mgrid[-5:6, -5:6]
    weights = np.exp(-(row**2 + column**2) / (2 * 1.5**2))
    weights /= weights.sum()
    values = []
    for top in range(14 - 10):
        for left in range(13 - 10):
            p, q = x[top : top + 11, left : left + 11], y[top : top + 11, left : left + 11]
            mean_p, mean_q = (weights * p).sum(), (weights * q).sum()
            variance_p, variance_q = (weights * (p - mean_p) ** 2).sum(), (weights * (q - mean_q) ** 2).sum()
            covariance = (weights * (p - mean_p) * (q - mean_q)).sum()
            values.append(
                (2 * mean_p * mean_q + 6.5025)
                * (2 * covariance + 58.5225)
                / ((mean_p**2 + mean_q**2 + 6.5025) * (variance_p + variance_q + 58.5225))
            )
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-10)


@pytest.mark.parametrize(
    ("metric", "a", "b", "border", "message"),
    [
        pytest.param(psnr, noise(1, (8, 8, 3)), noise(1, (8, 9, 3)), 0, "only like", id="shapes"),
        pytest.param(psnr, noise(1, (8, 8, 3)), np.zeros((8, 8, 3)), 0, "only like", id="types"),
        pytest.param(psnr, noise(1, (8, 8, 3)), noise(1, (8, 8, 3)), 4, "nothing to compare", id="all-border"),
        pytest.param(psnr, noise(1, (8, 8, 3)), noise(1, (8, 8, 3)), -1, "nothing to compare", id="negative"),
        pytest.param(psnr, noise(1, (8, 8, 4)), noise(1, (8, 8, 4)), 0, "luma takes", id="four-channels"),
        pytest.param(psnr, np.zeros((8, 8), int), np.zeros((8, 8), int), 0, "must be uint8", id="integers"),
        pytest.param(ssim, noise(1, (14, 14, 3)), noise(1, (14, 14, 3)), 2, "needs 11 pixels", id="small"),
        pytest.param(ssim, np.zeros((20, 20)), np.zeros((20, 20)), 0, "uint8", id="ssim-of-floats"),
    ],
)
def test_what_cannot_be_compared(metric: Any, a: NDArray[Any], b: NDArray[Any], border: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        metric(a, b, border)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "scale", "published", "measured"),
    [
        # Published by VDSR (Kim et al. 2016); Set14 agrees when its one gray picture is compared as it is.
        pytest.param("Set5", 2, (33.66, 0.9299), (33.6741, 0.9303), id="Set5-x2"),
        pytest.param("Set5", 4, (28.42, 0.8104), (28.4302, 0.8111), id="Set5-x4"),
        pytest.param("Set14", 2, (30.24, 0.8688), (30.2319, 0.8691), id="Set14-x2"),
        pytest.param("Set14", 4, (26.00, 0.7027), (25.9970, 0.7029), id="Set14-x4"),
    ],
)
def test_bicubic_has_the_figures_of_the_literature(
    name: str, scale: int, published: tuple[float, float], measured: tuple[float, float]
) -> None:
    if not DATA.is_dir():
        pytest.skip(f"the benchmark pictures are not in {DATA}")
    rows = []
    for file in sorted((DATA / name / f"x{scale}").glob("*_HR.png")):
        high, low = read_picture(file), read_picture(str(file).replace("_HR", "_LR"))
        a, b = (p.pixels[..., 0] if high.gray else p.pixels for p in (high, low))
        upscaled = imresize(b, scale)
        rows.append((psnr(upscaled, a, scale), ssim(upscaled, a, scale)))
    mean = np.mean(rows, axis=0)
    assert mean[0] == pytest.approx(published[0], abs=0.02)
    assert mean[1] == pytest.approx(published[1], abs=1e-3)
    assert mean[0] == pytest.approx(measured[0], abs=1e-3)
    assert mean[1] == pytest.approx(measured[1], abs=1e-4)
