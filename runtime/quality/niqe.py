"""NIQE: how natural a picture looks, without its original; lower is better.

Statistics of locally normalised luma in squares of 96 pixels, at two scales, against those of good photographs: the distance between two
Gaussians of 36 features. Source: Mittal, Soundararajan, Bovik, "Making a completely blind image quality analyzer", 2013. The
parameters of good photographs, `niqe.npz`, are those of the official SST repository (MIT licence), which has them from the authors.
"""

import functools
import math
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import UsageError
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.quality.metrics import rgb_to_y

BLOCK = 96
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
Values = NDArray[np.float64]


def niqe(image: NDArray[np.uint8]) -> float:
    """Return the NIQE of a picture (H, W, 3), uint8 RGB; what is beyond whole squares of `BLOCK` pixels is not looked at.

    Raises:
        UsageError: a side is shorter than a square.
    """
    height, width = (side // BLOCK * BLOCK for side in image.shape[:2])
    if not height or not width:
        raise UsageError(
            f"NIQE needs pictures of at least {BLOCK}x{BLOCK} pixels, got {image.shape[0]}x{image.shape[1]}"
        )
    luma = np.round(rgb_to_y(image))[:height, :width]
    features = [_features(luma, BLOCK)]
    features.append(_features(imresize(luma / 255, 0.5) * 255, BLOCK // 2))
    seen = np.concatenate(features, axis=1)
    complete = seen[~np.isnan(seen).any(axis=1)]
    mean, covariance = _good_photographs()
    difference = mean - np.nanmean(seen, axis=0)
    spread = np.atleast_2d(np.cov(complete, rowvar=False)) if len(complete) > 1 else np.zeros_like(covariance)
    return math.sqrt(float(difference @ np.linalg.pinv((covariance + spread) / 2) @ difference))


@functools.cache
def _good_photographs() -> tuple[Values, Values]:
    with files("flashrib.runtime.quality").joinpath("niqe.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        return stored["mean"], stored["covariance"]


def _features(luma: Values, side: int) -> Values:
    """(squares, 18): of each square the shape and width of its values, then of their products with four neighbours."""
    normalised = _normalised(luma)
    rows = []
    for x in range(0, normalised.shape[1], side):
        for y in range(0, normalised.shape[0], side):
            square = normalised[y : y + side, x : x + side]
            shape, left, right = _asymmetric_gaussian(square)
            row = [shape, (left + right) / 2]
            for shift in _SHIFTS:
                shape, left, right = _asymmetric_gaussian(square * np.roll(square, shift, axis=(0, 1)))
                middle = (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape)
                row += [shape, middle, left, right]
            rows.append(row)
    return np.array(rows)


def _normalised(luma: Values) -> Values:
    """In float32, as the official code does it: in flat parts the difference to the mean is then 0, and not a rounding of either sign,
    of which widths below and above 0 would be made."""
    x = luma.astype(np.float32)
    mean = _blur(x).astype(np.float32)
    deviation = np.sqrt(np.abs(_blur(x * x).astype(np.float32) - mean * mean))
    result: Values = ((x - mean) / (deviation + 1)).astype(np.float64)
    return result


def _blur(values: NDArray[Any]) -> Values:
    """A Gaussian of 7x7 with standard deviation 7/6; the edge goes on beyond itself."""
    taps = np.exp(-((np.arange(7) - 3) ** 2) / (2 * (7 / 6) ** 2))
    taps /= taps.sum()
    x: Values = values.astype(np.float64)
    for axis in (0, 1):
        padded: Any = np.pad(x, [(3, 3) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        length = x.shape[axis]
        x = sum(tap * np.take(padded, range(i, i + length), axis) for i, tap in enumerate(taps))
    return x


@functools.cache
def _ratios() -> tuple[Values, Values]:
    """Shapes, and the ratio of moments that each has."""
    shapes = np.arange(0.2, 10.001, 0.001)
    ratios = [math.gamma(2 / a) ** 2 / (math.gamma(1 / a) * math.gamma(3 / a)) for a in shapes]
    return shapes, np.array(ratios)


def _asymmetric_gaussian(x: Values) -> tuple[float, float, float]:
    """Shape, left and right width of an asymmetric generalized Gaussian, by moments; NaN where all values are of one sign."""
    below, above = x[x < 0], x[x > 0]
    left = math.sqrt(float(np.mean(below**2))) if below.size else math.nan
    right = math.sqrt(float(np.mean(above**2))) if above.size else math.nan
    ratio = left / right if right else math.nan
    mean_square = float(np.mean(x**2))
    seen = float(np.mean(np.abs(x))) ** 2 / mean_square if mean_square else math.nan
    wanted = seen * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, ratios = _ratios()
    shape = float(shapes[np.argmin((ratios - wanted) ** 2)])
    width = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return shape, left * width, right * width
