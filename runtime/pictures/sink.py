"""Where pixels go: whole arrays today, anything that takes bands of rows."""

from typing import Any, Protocol

from numpy.typing import NDArray

Pixels = NDArray[Any]


class Sink(Protocol):
    """Takes the rows of a result in bands, each row once, from top to bottom; any thread calls it, but one at a time each of
    `band` and `write`.
    """

    def band(self, rows: slice) -> Pixels:
        """Return where these rows are put together: (rows, W, 3) or (rows, W), of the type of the source, of any content.

        Several bands may be in work at the same time. One that is never written, since its tiles did not fit into memory,
        is asked for again, in whole or in part.

        Raises:
            OutOfMemoryError: there is no memory for it.
        """
        ...

    def write(self, rows: slice, pixels: Pixels) -> None:
        """Take the band that begins where the one before ended; `pixels` is what `band` returned for it, now filled.

        Raises:
            PictureError: it cannot be written.
        """
        ...


class ArraySink:
    """A whole array, (H, W, 3) or (H, W), which is filled in place."""

    def __init__(self, array: Pixels) -> None:
        self.array = array

    def band(self, rows: slice) -> Pixels:
        """Return a view of the array."""
        return self.array[rows]

    def write(self, rows: slice, pixels: Pixels) -> None:
        """Do nothing more: the band lies in the array."""
