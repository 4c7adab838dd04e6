"""What sessions have in common: they end with `with`, and those without workers of their own run one tile after the other."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.noise import padded
from flashrib.runtime.sessions.pixels import to_batch, to_pixels
from flashrib.runtime.sessions.protocol import Batch, Pixels, Session, TileWorker, not_finite, wrong_shape


class SessionBase:
    """Makes a `flashrib.runtime.sessions.protocol.Session` of a class that has `info`, `run` and `close`."""

    info: ModelInfo
    seed = 0
    place = ""

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
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


def place_of(device: str, info: ModelInfo) -> str:
    """Return `Session.place` of a model on a device; "" where the model cannot be told from others."""
    model = info.weights_sha256 or info.source_sha256
    return f"{device}, {model[:32]}, {info.precision}" if model else ""


def noise_or_zeros(info: ModelInfo, batch: Batch, noise: Batch | None) -> Batch | None:
    """Return the noise that a model is to be given with a batch: zeros where there is none, and none where it takes none."""
    if not info.noise:
        return None
    return no_noise(info, batch) if noise is None else noise


def given_to(info: ModelInfo, batch: Batch, noise: Batch | None) -> list[Batch]:
    """Return the inputs of a model: the batch, and its noise where it takes some."""
    return [given for given in (batch, noise_or_zeros(info, batch, noise)) if given is not None]


def noise_multiple(info: ModelInfo) -> int:
    """Return what sides are rounded up to for the size of a model's noise; 0: it takes none."""
    return info.alignment if info.noise else 0


def no_noise(info: ModelInfo, batch: Batch) -> Batch:
    """Return the noise of a batch that there is none for: zeros, see `Session.run`."""
    height, width = (info.scale * padded(side, info.alignment) for side in batch.shape[-2:])
    return np.zeros((len(batch), 3, height, width), np.float32)


class OneByOne:
    """A worker out of a session that takes a batch and returns its result; follows `TileWorker`."""

    ahead = 1

    def __init__(self, session: Session) -> None:
        self._session = session
        self._result: Batch | None = None

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str, noise: Batch | None = None) -> None:
        """Run the tile; see `TileWorker.submit`."""
        height, width = pixels.shape[:2]
        batch = to_batch(pixels)
        scale = self._session.info.scale
        result = self._session.run(batch) if noise is None else self._session.run(batch, noise)
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
        to_pixels(owned, target)

    def abandon(self) -> None:
        """See `TileWorker.abandon`."""
        self._result = None
