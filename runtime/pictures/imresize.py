"""Bicubic resizing as MATLAB's `imresize` does it, the degradation that super-resolution models are trained and judged on.

Source: MATLAB, Image Processing Toolbox, imresize.m (functions `contributions` and `cubic`); R. Keys, "Cubic
convolution interpolation for digital image processing", IEEE ASSP 29(6), 1981, equation 15 with a = -1/2.
"""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import UsageError

KERNEL_WIDTH = 4.0
ROWS_AT_ONCE = 32

Border = Literal["mirror", "repeat"]


def imresize(
    image: NDArray[Any],
    scale: float | None = None,
    size: tuple[int, int] | None = None,
    border: Border = "mirror",
) -> NDArray[Any]:
    """Resize `image` with the antialiased bicubic kernel; exactly one of `scale` and `size` is given.

    Args:
        image: (H, W) or (H, W, C), uint8 or floating point of any range.
        scale: magnification of both sides; the result has ceil(scale * side) pixels per side, as in MATLAB.
        size: (height, width) of the result in pixels; the scale of each side follows from it.
        border: what lies beyond the border: "mirror" (c b a | a b c) as MATLAB does now, or "repeat" (a a a | a b c), with
            which the widespread low-resolution files of Set5 and Set14 (SelfExSR) were made.

    Returns:
        The same number of channels. uint8 gives uint8, rounded half away from zero and clamped to 0..255 after each of the
        two passes, as MATLAB does; anything else gives float64, neither rounded nor clamped.

    Raises:
        UsageError: the arguments do not describe a resizing.
    """
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise UsageError(f"imresize takes a picture of (H, W) or (H, W, C) without empty sides, not {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise UsageError(f"imresize takes uint8 or floating point pixels, not {image.dtype}")
    height, width = image.shape[:2]
    if size is None and scale is not None and scale > 0 and math.isfinite(scale):
        scales = (float(scale), float(scale))
        target = (math.ceil(height * scale), math.ceil(width * scale))
    elif scale is None and size is not None and min(size) > 0:
        scales = (size[0] / height, size[1] / width)
        target = size
    else:
        raise UsageError(f"imresize takes a positive scale or a positive size, not scale={scale!r}, size={size!r}")

    result = image if image.dtype == np.uint8 else image.astype(np.float64)
    # The stronger reduction goes first; equal scales go rows first. With uint8 the order shows, because each pass rounds.
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        result = _resize_axis(result, axis, *contributions(result.shape[axis], target[axis], scales[axis], border))
    return result


def cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -1/2; zero outside of -2..2."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def contributions(
    length: int, target: int, scale: float, border: Border = "mirror"
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Weights and source indices of every output sample along one side.

    Args:
        length: samples of the source.
        target: samples of the result.
        scale: magnification; below 1 the kernel is widened by 1/scale (antialiasing).
        border: see `imresize`.

    Returns:
        weights (target, taps), each row summing to 1, and indices (target, taps) in 0..length-1.
    """
    stretch = min(scale, 1.0)
    support = KERNEL_WIDTH / stretch
    # Centre of output sample i in source coordinates, both counted from 0 at the centre of their first sample.
    centre = (np.arange(target) + 0.5) / scale - 0.5
    taps = math.ceil(support) + 2
    indices = np.floor(centre - support / 2).astype(np.intp)[:, None] + np.arange(taps)
    weights = stretch * cubic(stretch * (centre[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)

    if border == "mirror":
        indices %= 2 * length
        indices = np.minimum(indices, 2 * length - 1 - indices)
    else:
        indices = np.clip(indices, 0, length - 1)
    used = np.any(weights != 0, axis=0)
    return weights[:, used], indices[:, used]


def _resize_axis(
    image: NDArray[Any], axis: int, weights: NDArray[np.float64], indices: NDArray[np.intp]
) -> NDArray[Any]:
    """One pass of `imresize` along `axis`, in blocks of rows that stay in the cache; uint8 in, uint8 out."""
    target, taps = weights.shape
    shape = list(image.shape)
    shape[axis] = target
    result = np.empty(shape, image.dtype)
    weights = weights.reshape(target, taps, *[1] * (image.ndim - 1 - axis))
    for top in range(0, shape[0], ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        total = np.zeros_like(result[rows], np.float64)
        for tap in range(taps):
            if axis == 0:
                total += weights[rows, tap] * image[indices[rows, tap]]
            else:
                total += weights[:, tap] * np.take(image[rows], indices[:, tap], axis=1)
        if image.dtype == np.uint8:
            # Half away from zero; what is negative is clamped anyway.
            total = np.clip(np.floor(total + 0.5), 0, 255)
        result[rows] = total
    return result
