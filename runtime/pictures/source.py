"""Where pixels come from: whole arrays today, anything that can be read in bands of rows."""

import dataclasses
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]


class Source(Protocol):
    """Pixels to upscale, read in parts from top to bottom by any thread, one call at a time.

    Attributes:
        height: rows, >= 1.
        width: columns, >= 1.
        gray: parts are (rows, columns); otherwise (rows, columns, 3) RGB.
        dtype: uint8 or uint16 over their whole range, or float32, nominally 0..1.
    """

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def gray(self) -> bool: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return a part, with start and stop given, inside of the picture; it may be a view and is not written to.

        Raises:
            PictureError: the picture is damaged there.
        """
        ...

    def forget(self, row: int) -> None:
        """Take notice that no row above `row` will be read again; it never goes back."""
        ...


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """A whole array, (H, W, 3) or (H, W)."""

    pixels: Pixels

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def gray(self) -> bool:
        """Whether there is one channel only."""
        return self.pixels.ndim == 2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the samples."""
        return self.pixels.dtype

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return a view."""
        return self.pixels[rows, columns]

    def forget(self, row: int) -> None:
        """Keep everything: the array is the caller's."""
