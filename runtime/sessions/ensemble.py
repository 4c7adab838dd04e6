"""The x8 self-ensemble: the mean of what a model makes of a picture and of its mirror images, turned back (arXiv 1511.02228).

It costs eight times as much and gains a few hundredths to tenths of a dB; published figures with a "+" mean it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from flashrib.runtime.errors import UsageError
from flashrib.runtime.sessions.base import SessionBase
from flashrib.runtime.sessions.protocol import Batch, Pixels, Session, TileWorker, not_finite

Turn = Callable[[Any], Any]


def symmetries(rows: int, columns: int) -> list[tuple[Turn, Turn]]:
    """The eight symmetries of the square for the axes `rows` and `columns` of an array, each with the one that undoes it."""

    def pair(flip_rows: bool, flip_columns: bool, exchange: bool) -> tuple[Turn, Turn]:
        axes = tuple(axis for axis, flipped in ((rows, flip_rows), (columns, flip_columns)) if flipped)

        def there(x: Any) -> Any:
            x = np.flip(x, axes) if axes else x
            return x.swapaxes(rows, columns) if exchange else x

        def back(x: Any) -> Any:
            x = x.swapaxes(rows, columns) if exchange else x
            return np.flip(x, axes) if axes else x

        return there, back

    return [pair(a, b, c) for c in (False, True) for b in (False, True) for a in (False, True)]


class Ensemble(SessionBase):
    """A session whose results are the means over the eight symmetries; `close` closes the session inside."""

    def __init__(self, session: Session) -> None:
        """Wrap `session`.

        Raises:
            UsageError: the model takes one size alone that is no square, or noise.
        """
        info = session.info
        if info.fixed_size is not None and info.fixed_size[0] != info.fixed_size[1]:
            height, width = info.fixed_size
            raise UsageError(
                f"the ensemble turns pictures, but the model takes {height}x{width} pixels alone: export it with square tiles"
            )
        if info.noise:
            raise UsageError("the ensemble is for models that make one result of a picture, and this one takes noise")
        self.info, self.session, self.place = info, session, session.place

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """See `Session.run`."""
        turns = symmetries(2, 3)
        total = 0.0
        for there, back in turns:
            total = total + back(self.session.run(np.ascontiguousarray(there(batch))))
        result: Batch = np.ascontiguousarray(total / np.float32(len(turns)), np.float32)
        return result

    def close(self) -> None:
        """Close the session inside."""
        self.session.close()

    @property
    def workers(self) -> Sequence[TileWorker]:
        """The workers of the session inside, which run each tile eight times."""
        return [EnsembleWorker(worker, self.info.scale) for worker in self.session.workers]

    def most_pixels(self) -> int | None:
        """As the session inside."""
        return self.session.most_pixels()


class EnsembleWorker:
    """Runs each tile eight times with a worker, as many at once as that takes; follows `TileWorker`."""

    ahead = 1

    def __init__(self, worker: TileWorker, scale: int) -> None:
        self._worker, self._scale = worker, scale
        self._result: Pixels | None = None

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str, noise: Batch | None = None) -> None:
        """Run the tile; see `TileWorker.submit`."""
        source = pixels.astype(np.float32)
        if pixels.dtype != np.float32:
            source /= np.float32(np.iinfo(pixels.dtype).max)
        turns = symmetries(0, 1)
        waiting: deque[tuple[Turn, tuple[int, ...]]] = deque()
        total = np.zeros((self._scale * pixels.shape[0], self._scale * pixels.shape[1], *pixels.shape[2:]), np.float32)

        def collect() -> None:
            back, shape = waiting.popleft()
            part = np.empty(shape, np.float32)
            self._worker.collect(part)
            np.add(total, back(part), out=total)

        for there, back in turns:
            if len(waiting) == self._worker.ahead:
                collect()
            turned = np.ascontiguousarray(there(source))
            height, width = (self._scale * side for side in turned.shape[:2])
            self._worker.submit(turned, slice(0, height), slice(0, width), where)
            waiting.append((back, (height, width, *turned.shape[2:])))
        while waiting:
            collect()
        if not np.isfinite(total).all():
            raise not_finite(where)
        total /= np.float32(len(turns))
        self._result = total[rows, columns]

    def collect(self, target: Pixels) -> None:
        """See `TileWorker.collect`."""
        assert self._result is not None
        result, self._result = self._result, None
        if target.dtype != np.float32:
            result = np.rint(np.clip(result, 0, 1) * np.float32(np.iinfo(target.dtype).max))
        target[...] = result

    def abandon(self) -> None:
        """See `TileWorker.abandon`."""
        self._result = None
        self._worker.abandon()
