"""Writes PNG, JPEG and TIFF in bands of rows, whole or not at all."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.artifacts.files import opened_whole
from flashrib.runtime.errors import OutOfMemoryError, PictureError
from flashrib.runtime.overlap import Feed
from flashrib.runtime.pictures.encode import JPEG_QUALITY, Metadata, jpeg_options, png_chunks, to_8_bits
from flashrib.runtime.pictures.files import check_output
from flashrib.runtime.pictures.fit import fitted
from flashrib.runtime.pictures.formats import format_of
from flashrib.runtime.pictures.jpeg import JpegWriter
from flashrib.runtime.pictures.large.tiff import LEAST_TILE, has_directories, require_tifffile, write_tiff
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.pictures.png import LEVEL, PngWriter

Pixels = NDArray[Any]
ROWS = 256  # of a picture in memory that are handed on at a time


class RowSink:
    """A `flashrib.runtime.pictures.sink.Sink` over something that takes rows in order.

    Args:
        write: takes (rows, W, channels).
        width: columns of the result.
        channels: 1 or 3.
        dtype: of the samples.
    """

    def __init__(self, write: Callable[[Pixels], None], width: int, channels: int, dtype: np.dtype[Any]) -> None:
        self._write, self._width, self._channels, self._dtype = write, width, channels, dtype

    def band(self, rows: slice) -> Pixels:
        """Return memory for these rows."""
        shape = (rows.stop - rows.start, self._width)
        try:
            return np.empty(shape if self._channels == 1 else (*shape, 3), self._dtype)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"{shape[0]} rows of {shape[1]} pixels do not fit into memory: use a smaller --tile"
            ) from error

    def write(self, rows: slice, pixels: Pixels) -> None:
        """Hand the rows to the file."""
        self._write(pixels[..., None] if self._channels == 1 else pixels)


@contextlib.contextmanager
def file_sink(
    path: Path,
    height: int,
    width: int,
    channels: int,
    dtype: np.dtype[Any],
    metadata: Metadata,
    quality: int | None = None,
    tags: list[tuple[int, int, int, Any]] | None = None,
    png_level: int | None = None,
    pyramid: bool = False,
) -> Iterator[RowSink]:
    """Open a file for its rows; it gets its name at the end, and vanishes if anything goes wrong.

    Args:
        path: the file: .png, .jpg or .tif, where .tif becomes a tiled BigTIFF beyond 4 GB.
        height: rows of the result.
        width: columns of the result.
        channels: 1 or 3; of a TIFF 2 and 4, with alpha, as well.
        dtype: uint8 or uint16 of the samples that will be written; JPEG holds 8 bits.
        metadata: what is written beside the pixels.
        quality: 1 to 100 of JPEG; None: 95.
        tags: further tags of a TIFF: (number, type, count, value).
        png_level: 0 to 9 of PNG; None: 1.
        pyramid: a TIFF gets smaller levels; it is an OME-TIFF where the name ends in .ome.tif or .ome.tiff.

    Raises:
        PictureError: the file cannot be written.
    """
    kind = format_of(path)
    try:
        with opened_whole(path) as file:
            if kind is not None and kind.name == "PNG":
                level = LEVEL if png_level is None else png_level
                with PngWriter(file, height, width, channels, 8 * dtype.itemsize, png_chunks(metadata), level) as png:
                    yield RowSink(png.write, width, channels, dtype)
            elif kind is not None and kind.name == "JPEG":
                options = jpeg_options(metadata)
                with JpegWriter(file, height, width, channels, quality or JPEG_QUALITY, options) as jpeg:
                    yield RowSink(lambda rows: jpeg.write(to_8_bits(rows)), width, channels, dtype)
            else:
                more = {"pyramid": path.absolute().parent, "ome": is_ome(path)} if pyramid else {}
                with _tiff(file, (height, width, channels), dtype, metadata, tags or [], more) as write:
                    yield RowSink(write, width, channels, dtype)
    except OSError as error:
        raise PictureError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _tiff(
    file: IO[bytes],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    metadata: Metadata,
    tags: list[tuple[int, int, int, Any]],
    more: dict[str, Any],
) -> Iterator[Callable[[Pixels], None]]:
    """The TIFF library asks for rows, tiling brings them: a thread stands between."""
    feed: Feed[Pixels] = Feed(1)  # what waits there is kept by nobody else, and bands are large

    def write(rows: Pixels) -> None:
        for top in range(0, len(rows), LEAST_TILE):
            feed.put(rows[top : top + LEAST_TILE])

    with ThreadPoolExecutor(1, "tiff") as pool:
        feed.stage = pool.submit(write_tiff, file, iter(feed), shape, dtype, metadata, tags, **more)
        try:
            yield write
            feed.end()
        except BaseException:
            feed.stop()
            raise
        feed.stage.result()


def is_ome(path: Path) -> bool:
    """Whether a name is that of an OME-TIFF."""
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


def write_pyramid(path: Path, picture: Picture, *, overwrite: bool = False) -> tuple[str, ...]:
    """Write a picture that is in memory as a TIFF with smaller levels, whole or not at all; returns what could not be kept.

    Raises:
        MissingPackageError: tifffile is not installed.
        PictureError: as `flashrib.runtime.pictures.files.write_picture`.
    """
    check_output(path, overwrite=overwrite, height=picture.height, width=picture.width, alpha=picture.see_through)
    kind = format_of(path)
    assert kind is not None
    require_tifffile()
    try:
        samples, metadata, lost = fitted(picture, kind)
    except PictureError as error:
        raise PictureError(f"{path}: cannot be written: {error}") from error
    height, width, channels = samples.shape
    with file_sink(path, height, width, channels, samples.dtype, metadata, pyramid=True) as sink:
        for top in range(0, height, ROWS):
            rows = samples[top : top + ROWS]
            sink.write(slice(top, top + len(rows)), rows[..., 0] if channels == 1 else rows)
    return (*lost, "EXIF") if has_directories(metadata.exif) else lost
