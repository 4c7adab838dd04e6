"""The protocol that every session follows; whatever runs a model on pictures knows only this."""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Batch = NDArray[np.float32]


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
