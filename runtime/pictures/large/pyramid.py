"""The smaller levels of a pyramid, each half as large as the one before: made while the rows of the picture go by.

A file holds one level after the other, so the smaller ones wait in temporary files, a third of the picture in all.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

LEAST_SIDE = 256
"""The last level has no longer side than this."""
ROWS = 256  # read back at a time

Pixels = NDArray[Any]


class Level:
    """One smaller level.

    Attributes:
        shape: (H, W, channels).
    """

    def __init__(self, shape: tuple[int, int, int], dtype: np.dtype[Any], file: IO[bytes]) -> None:
        self.shape, self._dtype, self._file = shape, dtype, file
        self._odd: Pixels | None = None  # a row that waits for its pair

    def take(self, rows: Pixels) -> Pixels:
        """Keep the means of two rows and two columns each of the level above; returns them."""
        if self._odd is not None:
            rows = np.concatenate([self._odd, rows])
        even = len(rows) // 2 * 2
        self._odd = rows[even:].copy() if even < len(rows) else None
        return self._keep(rows[:even])

    def end(self) -> Pixels:
        """Say that there are no more rows; a last one without its pair is its own."""
        if self._odd is None:
            return self._keep(np.empty((0, 2, self.shape[2]), self._dtype))
        rows, self._odd = self._odd, None
        return self._keep(np.repeat(rows, 2, axis=0))

    def rows(self) -> Iterator[Pixels]:
        """Give the rows back."""
        self._file.seek(0)
        line = self.shape[1] * self.shape[2] * self._dtype.itemsize
        while content := self._file.read(ROWS * line):
            yield np.frombuffer(content, self._dtype).reshape(-1, *self.shape[1:])

    def _keep(self, rows: Pixels) -> Pixels:
        halved = _halved(rows)
        self._file.write(halved.tobytes())
        return halved


@contextlib.contextmanager
def levels(shape: tuple[int, int, int], dtype: np.dtype[Any], folder: Path | None) -> Iterator[list[Level]]:
    """Make the smaller levels of a picture, empty yet; their files lie in `folder` and vanish at the end.

    Args:
        shape: (H, W, channels) of the picture.
        dtype: uint8 or uint16.
        folder: with room for a third of the picture; None: there are no levels.
    """
    height, width, channels = shape
    with contextlib.ExitStack() as stack:
        made: list[Level] = []
        while folder is not None and max(height, width) > LEAST_SIDE:
            height, width = -(-height // 2), -(-width // 2)
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            made.append(Level((height, width, channels), dtype, file))
        yield made


def passed(rows: Iterator[Pixels], made: list[Level]) -> Iterator[Pixels]:
    """Yield the rows of the picture, and fill the levels meanwhile."""
    for part in rows:
        yield part
        for level in made:
            part = level.take(part)
    for number, level in enumerate(made):
        part = level.end()
        for below in made[number + 1 :]:
            part = below.take(part)


def _halved(rows: Pixels) -> Pixels:
    """Means of 2 x 2, rounded half up; a last column without its pair is its own."""
    if rows.shape[1] % 2:
        rows = np.concatenate([rows, rows[:, -1:]], axis=1)
    wide = rows.astype(np.uint32)
    total = wide[0::2, 0::2] + wide[0::2, 1::2] + wide[1::2, 0::2] + wide[1::2, 1::2]
    return ((total + 2) >> 2).astype(rows.dtype)
