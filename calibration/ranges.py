"""Range of an activation: up to which absolute value it is represented; what is beyond becomes that value.

minmax       the largest value seen: nothing is clipped
percentile   99.99 % of the values are within (onnxruntime.quantization)
entropy      least Kullback-Leibler divergence between the histograms before and after (onnxruntime.quantization)
mse          least mean square error of the rounded and clipped values
"""

import contextlib
import io

import numpy as np
from numpy.typing import NDArray

from flashrib.calibration.formats import Format

METHODS = ("minmax", "percentile", "entropy", "mse")
PERCENTILE = 99.99
_ENTROPY_BINS = 1024  # signed; of the library's search, which takes half a second per tensor with them


def clip_at(histogram: NDArray[np.int64], reach: float, method: str, kind: Format) -> float:
    """Return the end of the range.

    Args:
        histogram: counts of absolute values in equal bins from 0 to `reach`.
        reach: largest absolute value seen.
        method: one of `METHODS`.
        kind: the format that the values are rounded to, for "mse".
    """
    if method == "minmax" or reach <= 0 or not histogram.any():
        return reach
    if method == "mse":
        return _least_error(histogram, reach, kind)
    return _library(histogram, reach, method)


def _least_error(histogram: NDArray[np.int64], reach: float, kind: Format) -> float:
    """Try 64 ends from a quarter of the range on; every bin stands for its middle."""
    values = (np.arange(len(histogram)) + 0.5) * (reach / len(histogram))
    ends = reach * np.linspace(0.25, 1.0, 64)
    errors = [float(histogram @ np.square(kind.rounded(values, kind.scale_of(end)) - values)) for end in ends]
    return float(ends[int(np.argmin(errors))])


def _library(histogram: NDArray[np.int64], reach: float, method: str) -> float:
    from onnxruntime.quantization.calibrate import HistogramCollector

    if method == "entropy":
        folded = histogram.reshape(_ENTROPY_BINS // 2, -1).sum(1)
        counts = np.concatenate([folded[::-1], folded])  # symmetric, as the library's search is
        edges = np.linspace(-reach, reach, _ENTROPY_BINS + 1).astype(np.float32)
    else:
        counts, edges = histogram, np.linspace(0, reach, len(histogram) + 1).astype(np.float32)
    collector = HistogramCollector(method, True, len(counts), 128, PERCENTILE, "same")
    low, high = np.float32(-reach), np.float32(reach)
    collector.histogram_dict = {
        "x": (counts, edges, low, high, high) if method == "entropy" else (counts, edges, low, high)
    }
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints what it does
        result = collector.compute_collection_result()["x"]
    return float(min(abs(result[1]), reach)) or reach
