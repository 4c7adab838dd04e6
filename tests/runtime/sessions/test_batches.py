"""Completing and dropping of pictures, with a model that notes what it was given."""

import numpy as np
import pytest

from flashrib.runtime.sessions.batches import run_in_batches
from flashrib.runtime.sessions.protocol import Batch


@pytest.mark.parametrize(
    ("count", "size", "given"),
    [
        (1, 1, [[0]]),
        (3, 1, [[0], [1], [2]]),
        (2, 2, [[0, 1]]),
        (1, 3, [[0, 0, 0]]),
        (5, 2, [[0, 1], [2, 3], [4, 4]]),
        (7, 4, [[0, 1, 2, 3], [4, 5, 6, 6]]),
    ],
)
def test_batches(count: int, size: int, given: list[list[int]]) -> None:
    seen: list[list[int]] = []

    def run(batch: Batch) -> Batch:
        seen.append([int(value) for value in batch[:, 0, 0, 0]])
        return 10 + batch.repeat(2, axis=3)

    pictures = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    result = run_in_batches(run, pictures, size)
    assert seen == given
    np.testing.assert_array_equal(result, 10 + pictures.repeat(2, axis=3))
