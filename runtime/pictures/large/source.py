"""Reads PNG, JPEG, TIFF and BigTIFF row by row through libvips, which decodes no further than it is asked to."""

import importlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import MissingPackageError, PictureError

CHUNK_BYTES = 2**23
"""Decoded at a time, at least one row."""

Pixels = NDArray[Any]
_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}


class VipsSource:
    """The pixels of a file, a `flashrib.runtime.pictures.source.Source`: rows are decoded once, from top to bottom, and kept until
    they are forgotten.

    Args:
        path: the file. It has one page, is gray or RGB with 8 or 16 bits, and has no alpha; `reason_not_streamed` says so beforehand.

    Raises:
        MissingPackageError: pyvips is not installed.
        PictureError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._vips = require_vips()
        self._path = path
        try:
            image = self._vips.Image.new_from_file(os.fspath(path), access="sequential", fail_on="warning")
            if image.format not in _DTYPES or image.bands not in (1, 3):
                raise PictureError(f"{path}: {image.bands} channels of {image.format} cannot be read row by row")
            self._region = self._vips.Region.new(image)
        except self._vips.Error as error:
            raise PictureError(f"{path}: cannot be read: {_message(error)}") from error
        self.height, self.width = int(image.height), int(image.width)
        self.gray = image.bands == 1
        self.dtype: np.dtype[Any] = np.dtype(_DTYPES[image.format])
        self._channels = image.bands
        self._rows = np.empty((0, self.width, self._channels), self.dtype)
        self._top = 0  # row of the picture that _rows begins with

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return a part of the picture; it may be a view.

        Raises:
            PictureError: the file is damaged there.
        """
        if rows.start < self._top:
            raise ValueError(f"row {rows.start} was forgotten; the first that is kept is {self._top}")
        while self._top + len(self._rows) < rows.stop:
            self._rows = np.concatenate([self._rows, self._next(rows.stop)])
        part = self._rows[rows.start - self._top : rows.stop - self._top, columns]
        return part[..., 0] if self.gray else part

    def forget(self, row: int) -> None:
        """Free the rows above `row`."""
        drop = min(max(0, row - self._top), len(self._rows))
        if drop:
            self._rows = self._rows[drop:].copy()
            self._top += drop

    def _next(self, wanted: int) -> Pixels:
        top = self._top + len(self._rows)
        line = self.width * self._channels * self.dtype.itemsize
        # As much as is wanted, but no more than a chunk in one call of the decoder.
        count = min(max(1, CHUNK_BYTES // line), wanted - top)
        try:
            content = self._region.fetch(0, top, self.width, count)
        except self._vips.Error as error:
            raise PictureError(f"{self._path}: is damaged or truncated: {_message(error)}") from error
        return np.frombuffer(content, self.dtype).reshape(count, self.width, self._channels)


def require_vips() -> Any:
    """Return the module `pyvips`.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        vips = importlib.import_module("pyvips")
    except (ImportError, OSError) as error:
        raise MissingPackageError("pyvips", "a picture that is larger than memory", "large") from error
    vips.cache_set_max(0)  # nothing is computed twice here
    return vips


def _message(error: Exception) -> str:
    """Return what libvips says, without what it said before."""
    return " ".join(str(error).split()).removeprefix("unable to call VipsForeignLoadPngFile ")
