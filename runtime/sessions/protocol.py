"""The protocols that sessions follow; whatever runs a model on pictures knows only these."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import SessionError

Batch = NDArray[np.float32]
Pixels = NDArray[Any]


@runtime_checkable
class Session(Protocol):
    """A loaded model that maps a batch of pictures to a larger batch.

    Attributes:
        scale: integer magnification, 1..8.
        multiple: tile alignment in input pixels (the least common multiple of all window sides). A tile whose origin is a
            multiple of it sees the windows of the whole picture; any other origin changes the partition of the whole tile.
        minimum: smallest side in input pixels that `run` accepts. Smaller pictures are completed by reflection before.
        channels: channels of the input and the output (3: RGB).
        dtype: numpy dtype of the computation's input and output as the model file declares it ("float32", "float16").
        fixed_size: (H, W) in input pixels where the model takes this one size only, otherwise None.
        whole_picture: True where a pixel depends on the whole picture (ESC-RIB averages over it), so that tiles change the
            result everywhere and not only near their seams.
    """

    scale: int
    multiple: int
    minimum: int
    channels: int
    dtype: str
    fixed_size: tuple[int, int] | None
    whole_picture: bool

    def run(self, batch: Batch) -> Batch:
        """Upscale `batch` (B, channels, H, W), RGB, nominally 0..1, float32 -> (B, channels, scale*H, scale*W), not clamped.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: anything else that kept the model from running.
        """
        ...

    def close(self) -> None:
        """Free what the session holds; calling it again does nothing."""
        ...


class TileWorker(Protocol):
    """A device that takes tiles of a picture as they are and has several in work, so that it need not wait for whoever cuts
    and writes them. Used by one thread at a time.

    Attributes:
        ahead: tiles that `submit` takes before the oldest must be collected, >= 1.
    """

    ahead: int

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str) -> None:
        """Take a tile and return without waiting for its result.

        Args:
            pixels: (H, W, 3) RGB or (H, W) gray, uint8 or uint16 over their whole range, or float32; read before this returns.
            rows: of the result, (scale*H, scale*W), to keep.
            columns: of the result to keep.
            where: what the tile is called in messages.

        Raises:
            OutOfMemoryError, SessionError: as `Session.run`, of this tile or of one before.
        """
        ...

    def collect(self, target: Pixels) -> None:
        """Wait for the oldest tile and write it into `target`, of its shape and dtype: clamped and rounded half to even where
        that is an integer, the mean of the channels where it is gray.

        Raises:
            OutOfMemoryError, SessionError: as `Session.run`; the result holds NaN or infinity, or has another shape.
        """
        ...

    def abandon(self) -> None:
        """Forget the tiles in work and free memory, so that smaller ones may fit; the worker can be used further."""
        ...


@runtime_checkable
class TileSession(Session, Protocol):
    """A session that also takes tiles as they are, on one or several devices.

    Attributes:
        workers: one per device, at least one.
    """

    @property
    def workers(self) -> Sequence[TileWorker]: ...

    def most_pixels(self) -> int:
        """Return how many input pixels a tile may read, halo included, by default."""
        ...


def wrong_shape(shape: tuple[int, ...], expected: tuple[int, ...], scale: int, where: str) -> SessionError:
    """Return the error of a result that is not `scale` times as large as its tile."""
    return SessionError(
        f"the model returned the shape {shape} for {where}, but {expected} was expected: its scale is not {scale} as its"
        " description says; export it anew"
    )


def not_finite(where: str) -> SessionError:
    """Return the error of a result with NaN or infinity."""
    return SessionError(
        f"the model returned NaN or infinity for {where}: its precision does not hold this picture; use a model of higher"
        " precision (fp32)"
    )
