"""PSNR and SSIM as the super-resolution literature computes them: on BT.601 luma, without a border of `scale` pixels."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import UsageError

# Coefficients of MATLAB's rgb2ycbcr for 0..255 in and 16..235 out (ITU-R BT.601).
LUMA_WEIGHTS = np.array([65.481, 128.553, 24.966]) / 255.0
LUMA_OFFSET = 16.0
# Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity", 2004.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03


def rgb_to_y(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Luma of a picture as MATLAB's `rgb2ycbcr` defines it, not rounded (the convention of BasicSR).

    Args:
        image: (H, W, 3) RGB, uint8.

    Returns:
        (H, W), 16..235.

    Raises:
        UsageError: another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"luma takes an RGB picture (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
    luma: NDArray[np.float64] = image @ LUMA_WEIGHTS + LUMA_OFFSET
    return luma


def psnr(a: NDArray[Any], b: NDArray[Any], border: int = 0, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio 10 log10(peak^2 / mean((a - b)^2)) in decibels; infinite where both are equal.

    Args:
        a: (H, W, 3) uint8, compared on luma; or, compared as it is, (H, W) uint8 or a floating point array (H, W) or
            (H, W, C). For a gray picture the two ways differ by 20 log10(255 / 219) = 1.32 dB, because luma spans 16..235.
            Set14 has one: with luma (BasicSR) bicubic x2 has 30.33 dB on average, with gray as it is the 30.23 dB of the
            older literature.
        b: the same shape and type.
        border: pixels left out on every side.
        peak: largest possible value; 255 for uint8.

    Raises:
        UsageError: shapes or types differ or do not fit, or nothing is left inside the border.
    """
    a, b = _comparable(a, b, border)
    error = float(np.mean(np.square(a - b)))
    return 10 * math.log10(peak**2 / error) if error else math.inf


def ssim(a: NDArray[np.uint8], b: NDArray[np.uint8], border: int = 0) -> float:
    """Mean structural similarity, -1..1, 1 where both are equal.

    Gaussian window of 11x11 with sigma 1.5, only where it lies wholly inside, K1 = 0.01, K2 = 0.03, L = 255.

    Args:
        a: (H, W, 3) RGB, or (H, W) compared as it is; uint8.
        b: the same shape and type.
        border: pixels left out on every side.

    Raises:
        UsageError: see `psnr`; or less than 11 pixels a side are left inside the border.
    """
    if a.dtype != np.uint8:
        raise UsageError(f"ssim takes uint8 pictures, not {a.dtype}")
    x, y = _comparable(a, b, border)
    if min(x.shape) < SSIM_WINDOW:
        raise UsageError(
            f"ssim needs {SSIM_WINDOW} pixels a side, not {x.shape[1]} x {x.shape[0]} inside a border of {border}"
        )
    c1, c2 = (SSIM_K1 * 255) ** 2, (SSIM_K2 * 255) ** 2
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    variance_x = _gaussian(x * x) - mean_x**2
    variance_y = _gaussian(y * y) - mean_y**2
    covariance = _gaussian(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    return float(similarity.mean())


def _comparable(
    a: NDArray[Any], b: NDArray[Any], border: int
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Check both arrays and return their values in float64 inside the border."""
    if a.shape != b.shape or a.dtype != b.dtype:
        raise UsageError(f"only like can be compared, not {a.shape} of {a.dtype} with {b.shape} of {b.dtype}")
    if a.ndim not in (2, 3) or border < 0 or min(a.shape[:2]) <= 2 * border:
        raise UsageError(f"nothing to compare in {a.shape} inside a border of {border}")
    height, width = a.shape[:2]
    inside = np.s_[border : height - border, border : width - border]
    if a.dtype == np.uint8 and a.ndim == 3:
        return rgb_to_y(a[inside]), rgb_to_y(b[inside])
    if a.dtype != np.uint8 and not np.issubdtype(a.dtype, np.floating):
        raise UsageError(f"pictures to compare must be uint8 or floating point, not {a.dtype}")
    return a[inside].astype(np.float64), b[inside].astype(np.float64)


def _gaussian(x: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Weighted mean of (H, W) under the window, where it lies wholly inside: (H - 10, W - 10)."""
    taps = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-(taps**2) / (2 * SSIM_SIGMA**2))
    weights /= weights.sum()
    height, width = x.shape[0] - SSIM_WINDOW + 1, x.shape[1] - SSIM_WINDOW + 1
    down = sum(weight * x[i : i + height] for i, weight in enumerate(weights))
    return np.asarray(sum(weight * down[:, i : i + width] for i, weight in enumerate(weights)))
