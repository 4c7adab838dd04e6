"""What sessions have in common: they end with `with`, and those without workers of their own run one tile after the other."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.sessions.protocol import Batch, Pixels, Session, TileWorker, not_finite, wrong_shape


class SessionBase:
    """Makes a `flashrib.runtime.sessions.protocol.Session` of a class that has `info`, `run` and `close`."""

    info: ModelInfo

    def run(self, batch: Batch) -> Batch:
        """See `Session.run`."""
        raise NotImplementedError

    def close(self) -> None:
        """See `Session.close`."""
        raise NotImplementedError

    @property
    def workers(self) -> Sequence[TileWorker]:
        """One worker, which runs a tile when it gets it."""
        return (OneByOne(self),)

    def most_pixels(self) -> int | None:
        """Nothing is known about the memory that a tile needs."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class OneByOne:
    """A worker out of a session that takes a batch and returns its result; follows `TileWorker`."""

    ahead = 1

    def __init__(self, session: Session) -> None:
        self._session = session
        self._result: Batch | None = None

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str) -> None:
        """Run the tile; see `TileWorker.submit`."""
        height, width = pixels.shape[:2]
        batch = np.empty((1, 3, height, width), np.float32)
        batch[0] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if pixels.dtype != np.float32:
            batch /= np.float32(np.iinfo(pixels.dtype).max)
        scale = self._session.info.scale
        result = self._session.run(batch)
        expected = (1, 3, height * scale, width * scale)
        if result.shape != expected:
            raise wrong_shape(result.shape, expected, scale, where)
        # NaN spreads into both; nothing of the tile's size is allocated for the check.
        if not (np.isfinite(result.min()) and np.isfinite(result.max())):
            raise not_finite(where)
        self._result = result[0, :, rows, columns]

    def collect(self, target: Pixels) -> None:
        """See `TileWorker.collect`."""
        assert self._result is not None
        owned, self._result = self._result, None
        if target.ndim == 2:
            owned = owned.mean(axis=0, keepdims=True)
        if target.dtype != np.float32:
            # A copy: the array belongs to the session.
            owned = np.clip(owned, 0, 1)
            owned *= np.float32(np.iinfo(target.dtype).max)
            np.rint(owned, out=owned)
        target[...] = owned[0] if target.ndim == 2 else owned.transpose(1, 2, 0)

    def abandon(self) -> None:
        """See `TileWorker.abandon`."""
        self._result = None
