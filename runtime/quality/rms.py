"""Root mean squares: how far two tensors are from each other, in one number that does not depend on their size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rms(values: NDArray[Any]) -> float:
    """Root of the mean of the squares, computed in float64."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def rms_ratio(expected: NDArray[Any], found: NDArray[Any], least: float) -> float:
    """RMS of the difference over the RMS of `expected`, which counts as at least `least`; infinite where `found` is not finite.

    Args:
        expected: the reference, of any shape.
        found: of the same shape.
        least: > 0; makes the ratio defined for a reference of zeros.
    """
    if not np.isfinite(found).all():
        return float("inf")
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return rms(difference) / max(rms(expected.astype(np.float64)), least)
