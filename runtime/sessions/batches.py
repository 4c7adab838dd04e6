"""Any number of pictures through a model whose batch is fixed."""

from collections.abc import Callable

import numpy as np

from flashrib.runtime.sessions.protocol import Batch


def run_in_batches(run: Callable[[Batch], Batch], pictures: Batch, size: int) -> Batch:
    """Run `pictures` (B, C, H, W), B at least 1, through a model that takes exactly `size` of them at a time.

    The last batch is padded with copies of its last picture; what the model makes of them is dropped. Pictures of a batch do not
    influence each other, so any padding will do; a copy is of the same range of values as the rest.

    Args:
        run: maps (size, C, H, W) to (size, C, H', W').
        pictures: any number of pictures.
        size: pictures of one run, >= 1.

    Returns:
        (B, C, H', W')
    """
    results = []
    for first in range(0, len(pictures), size):
        batch = pictures[first : first + size]
        kept = len(batch)
        if kept < size:
            batch = np.concatenate([batch, batch[-1:].repeat(size - kept, axis=0)])
        results.append(run(batch)[:kept])
    return np.concatenate(results) if len(results) > 1 else results[0]
