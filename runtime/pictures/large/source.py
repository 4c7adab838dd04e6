"""Reads PNG, JPEG, TIFF and BigTIFF row by row through libvips, which decodes no further than it is asked to."""

import importlib
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import MissingPackageError, PictureError

CHUNK_BYTES = 2**16
"""Decoded at a time, at least one row: the library keeps many times as many rows as it is asked for."""
DECODER_ROWS = 600
"""Rows of the picture that libvips keeps, as measured."""

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
            # Not by its name: the library would map a JPEG, whose pages count as memory of this process.
            self._source = self._vips.SourceCustom()
            file = _File(path)
            self._source.on_read(file.read)
            self._source.on_seek(file.seek)
            image = self._vips.Image.new_from_source(self._source, "", access="sequential", fail_on="warning")
            if image.format not in _DTYPES or image.bands not in (1, 3):
                raise PictureError(f"{path}: {image.bands} channels of {image.format} cannot be read row by row")
            self._region = self._vips.Region.new(image)
        except self._vips.Error as error:
            raise PictureError(f"{path}: cannot be read: {_message(error)}") from error
        self.height, self.width = int(image.height), int(image.width)
        self.gray = image.bands == 1
        self.dtype: np.dtype[Any] = np.dtype(_DTYPES[image.format])
        self._channels = image.bands
        # Memory that is used again: large arrays that come and go leave holes in a process.
        self._memory = np.empty((0, self.width, self._channels), self.dtype)
        self._top = self._kept = 0  # row of the picture that it begins with, and how many it holds

    def read(self, rows: slice, columns: slice) -> Pixels:
        """Return a part of the picture; it may be a view.

        Raises:
            PictureError: the file is damaged there.
        """
        if rows.start < self._top:
            raise ValueError(f"row {rows.start} was forgotten; the first that is kept is {self._top}")
        self._grow(rows.stop - self._top)
        while self._top + self._kept < rows.stop:
            decoded = self._next(rows.stop)
            self._memory[self._kept : self._kept + len(decoded)] = decoded
            self._kept += len(decoded)
        part = self._memory[rows.start - self._top : rows.stop - self._top, columns]
        # A copy, since rows move when those above are forgotten, while a device still has the tile.
        return (part[..., 0] if self.gray else part).copy()

    def forget(self, row: int) -> None:
        """Free the rows above `row`."""
        drop = min(max(0, row - self._top), self._kept)
        if drop:
            _move_up(self._memory[: self._kept], drop)
            self._top += drop
            self._kept -= drop

    def _grow(self, rows: int) -> None:
        """Make room for so many rows."""
        if rows > len(self._memory):
            memory = np.empty((rows, *self._memory.shape[1:]), self.dtype)
            memory[: self._kept] = self._memory[: self._kept]
            self._memory = memory

    def _next(self, wanted: int) -> Pixels:
        top = self._top + self._kept
        line = self.width * self._channels * self.dtype.itemsize
        # As much as is wanted, but no more than a chunk in one call of the decoder.
        count = min(max(1, CHUNK_BYTES // line), wanted - top)
        try:
            content = self._region.fetch(0, top, self.width, count)
        except self._vips.Error as error:
            raise PictureError(f"{self._path}: is damaged or truncated: {_message(error)}") from error
        return np.frombuffer(content, self.dtype).reshape(count, self.width, self._channels)


class _File:
    """A file as libvips asks for it, from its own threads; closed when nobody has it any more."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from error
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, count: int) -> bytes:
        try:
            return os.read(self._descriptor, count)
        except OSError:
            return b""  # libvips says that the file ends too early

    def seek(self, offset: int, whence: int) -> int:
        return os.lseek(self._descriptor, offset, whence)


def _move_up(rows: Pixels, by: int) -> None:
    """Move rows to the front, a few at a time: where both overlap, NumPy would copy them all first."""
    for start in range(by, len(rows), by):
        rows[start - by : min(start, len(rows) - by)] = rows[start : start + by]


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
    return " ".join(str(error).split()).removeprefix("unable to call VipsForeignLoadPngSource ")
