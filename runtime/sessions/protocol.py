"""The protocols that sessions follow; whatever runs a model on pictures knows only these."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import SessionError

Batch = NDArray[np.float32]
Pixels = NDArray[Any]


@runtime_checkable
class Session(Protocol):
    """A loaded model that maps a batch of pictures to a larger batch. `flashrib.runtime.sessions.base.SessionBase` has most of it.

    Attributes:
        info: what is known about the model; see there for scale, alignment, minimum, fixed_size, whole_picture and noise.
        seed: of the noise of pictures, for models that take some; see `flashrib.runtime.noise`.
        place: device, model and precision in words, under which it is remembered how large a tile fits; "": it is not.
    """

    info: ModelInfo
    seed: int
    place: str

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Upscale `batch` (B, channels, H, W), RGB, nominally 0..1, float32 -> (B, channels, scale*H, scale*W), not clamped.

        Args:
            batch: pictures.
            noise: for models that take some (`info.noise`), standard normal, (B, 3, scale*H', scale*W'), H' and W' being H and W
                rounded up to multiples of `info.alignment`; None: zeros, which make a smoother picture.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: anything else that kept the model from running.
        """
        ...

    def close(self) -> None:
        """Free what the session holds; calling it again does nothing."""
        ...

    @property
    def workers(self) -> "Sequence[TileWorker]":
        """What runs tiles of pictures: one per device that has not failed; none once the session is closed."""
        ...

    def most_pixels(self) -> int | None:
        """Return how many input pixels a tile may read, halo included, by default; None where nobody measured it.

        Raises:
            OutOfMemoryError, SessionError: the run that measures it failed.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session."""
        ...


class TileWorker(Protocol):
    """A device that takes tiles of a picture as they are and has several in work, so that it need not wait for whoever cuts
    and writes them. Used by one thread at a time.

    Attributes:
        ahead: tiles that `submit` takes before the oldest must be collected, >= 1.
    """

    ahead: int

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str, noise: Batch | None = None) -> None:
        """Take a tile and return without waiting for its result.

        Args:
            pixels: (H, W, 3) RGB or (H, W) gray, uint8 or uint16 over their whole range, or float32; read before this returns.
            rows: of the result, (scale*H, scale*W), to keep.
            columns: of the result to keep.
            where: what the tile is called in messages.
            noise: of the tile, see `Session.run`.

        Raises:
            DeviceFailedError: the device will not run another; its tiles in work are lost.
            OutOfMemoryError, SessionError: as `Session.run`, of this tile or of one before.
        """
        ...

    def collect(self, target: Pixels) -> None:
        """Wait for the oldest tile and write it into `target`, of its shape and dtype: clamped and rounded half to even where
        that is an integer, the mean of the channels where it is gray.

        Raises:
            DeviceFailedError: as `submit`.
            OutOfMemoryError, SessionError: as `Session.run`; the result holds NaN or infinity, or has another shape.
        """
        ...

    def abandon(self) -> None:
        """Forget the tiles in work and free memory, so that smaller ones may fit; the worker can be used further."""
        ...


def wrong_shape(shape: tuple[int, ...], expected: tuple[int, ...], scale: int, where: str) -> SessionError:
    """Return the error of a result that is not `scale` times as large as its tile."""
    return SessionError(
        f"the model returned the shape {shape} for {where}, but {expected} was expected: its scale is not {scale} as its"
        " description says; export it again"
    )


def not_finite(where: str) -> SessionError:
    """Return the error of a result with NaN or infinity."""
    return SessionError(
        f"the model returned NaN or infinity for {where}: its precision does not hold this picture; use a model of higher"
        " precision (fp32)"
    )
