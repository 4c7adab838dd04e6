"""Any number of pictures through a model whose batch is fixed."""

from collections.abc import Callable

import numpy as np

from flashrib.runtime.sessions.protocol import Batch


def run_in_batches(run: Callable[..., Batch], pictures: Batch, size: int, noise: Batch | None = None) -> Batch:
    """Run `pictures` (B, C, H, W), B at least 1, through a model that takes exactly `size` of them at a time.

    The last batch is padded with copies of its last picture; what the model makes of them is dropped. Pictures of a batch do not
    influence each other, so any padding will do; a copy is of the same range of values as the rest.

    Args:
        run: maps (size, C, H, W), and their noise where there is some, to (size, C, H', W').
        pictures: any number of pictures.
        size: pictures of one run, >= 1.
        noise: of the pictures, for models that take some.

    Returns:
        (B, C, H', W')
    """
    results = []
    for first in range(0, len(pictures), size):
        inputs = [given[first : first + size] for given in (pictures, noise) if given is not None]
        kept = len(inputs[0])
        if kept < size:
            inputs = [np.concatenate([given, given[-1:].repeat(size - kept, axis=0)]) for given in inputs]
        results.append(run(*inputs)[:kept])
    return np.concatenate(results) if len(results) > 1 else results[0]
