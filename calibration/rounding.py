"""Weights rounded so that the errors of one product cancel, and the bias that keeps its mean.

Rounding every weight to the nearest value of the grid is best for each weight, not for their sum. Weights are therefore rounded one
input after the other, and the error of each is made up for by those inputs still to come, as far as the calibration tiles say that
they vary together. Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ: Accurate post-training quantization for generative pre-trained
transformers", 2023, section 3.3 (without its blocks and its order by size).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.calibration.formats import Format
from flashrib.calibration.statistics import Doubles

DAMPING = 1e-2  # of the mean square of an input, added to each: directions that the tiles hardly show are not relied on


def round_weight(weight: NDArray[Any], gram: Doubles, scale: NDArray[Any], kind: Format) -> Doubles:
    """Return values of the grid times `scale` that give nearly the same product as `weight`.

    Args:
        weight: (K, out).
        gram: (K, K), second moments of the inputs about their means.
        scale: (out,) or a single one.
        kind: the grid.
    """
    left = np.array(weight, np.float64)
    inputs = len(left)
    level = float(np.mean(np.diag(gram))) or 1.0
    inverse = np.linalg.inv(gram + DAMPING * level * np.eye(inputs))
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    rounded = np.empty_like(left)
    for k in range(inputs):
        rounded[k] = kind.rounded(left[k], scale)
        error = (left[k] - rounded[k]) / upper[k, k]
        left[k + 1 :] -= np.outer(upper[k, k + 1 :], error)
    return rounded
