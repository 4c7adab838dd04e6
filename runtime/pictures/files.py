"""Pictures in and out of files and streams, at their own depth, with what belongs to them; `formats` has the table of formats."""

import contextlib
import dataclasses
import io
import os
import select
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from flashrib.runtime.artifacts.files import opened_whole
from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.alpha import fill_transparent
from flashrib.runtime.pictures.decode import decode, oriented
from flashrib.runtime.pictures.fit import fitted
from flashrib.runtime.pictures.formats import (
    FORMATS,
    PILLOW_FORMATS,
    WRITTEN_SUFFIXES,
    Encoder,
    Format,
    names,
    opened_format,
    written_format,
)
from flashrib.runtime.pictures.libtiff import libtiff_errors
from flashrib.runtime.pictures.limits import max_pixels_by_memory, too_large
from flashrib.runtime.pictures.metadata import exif_as_srgb, profile_of, read_exif, read_extras
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.pictures.png import LEVELS
from flashrib.runtime.pictures.tiff import why_not_tiff

__all__ = [
    "Picture",
    "check_output",
    "fill_transparent",
    "read_picture",
    "read_stream",
    "write_picture",
    "write_stream",
]

PIPE_SECONDS = 5.0
"""Waiting for the first byte in a named pipe."""

MOST_BYTES = 2**31
"""Of a file that comes through a pipe and is held in memory as a whole."""

# Pillow's pixel limit, its answer to truncated files and Python's warning filters belong to the whole process.
_reading = threading.Lock()


class _DamagedError(PictureError):
    """A picture of which a part may be usable."""


def read_picture(
    path: str | os.PathLike[str], *, max_pixels: int | None = None, allow_truncated: bool = False
) -> Picture:
    """Read a file of one of the formats in `formats.FORMATS`; its content decides, not its name.

    Palettes and transparent values become RGB(A). CMYK and Lab become 8-bit sRGB, CMYK through the file's profile. The
    orientation of the EXIF block is applied. An ICC profile that does not fit the pixels is dropped; what a PNG or EXIF says about
    colours in another way becomes a profile. Of the several pictures in a phone's JPEG the first is read, and of a TIFF the only
    one that is neither a thumbnail nor a mask.

    Args:
        path: the file, or a pipe such as /dev/stdin.
        max_pixels: refuse larger pictures; guards against forged headers. None: what fits into free memory.
        allow_truncated: take what there is of a file whose end is missing, the rest gray or black; `Picture.extras.lost` says so.

    Raises:
        PictureError: there is no such file, it is not a picture, it is damaged or truncated, it is an animation or has
            several pages, it is too large, or its kind of pixels is not supported.
    """
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            raise PictureError(f"{path}: is a {'folder' if stat.S_ISDIR(mode) else 'device'}, not a picture")
        with _opened(path, named_pipe=stat.S_ISFIFO(mode) and "pipe:" not in os.path.realpath(path)) as file:
            return read_stream(file, os.fspath(path), max_pixels=max_pixels, allow_truncated=allow_truncated)
    except FileNotFoundError as error:
        raise PictureError(f"{path}: there is no such file") from error
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the name
        raise PictureError(f"{os.fspath(path)!r}: cannot be a file name: {error}") from error


def _opened(path: str | os.PathLike[str], named_pipe: bool) -> IO[bytes]:
    """Open a file; a named pipe that nobody writes to would keep us for ever."""
    if not named_pipe:
        return open(path, "rb")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not select.select([descriptor], [], [], PIPE_SECONDS)[0]:
        os.close(descriptor)
        raise PictureError(f"{path}: nobody has written into this pipe for {PIPE_SECONDS:.0f} s")
    os.set_blocking(descriptor, True)
    return open(descriptor, "rb")


def read_stream(file: IO[bytes], name: str, *, max_pixels: int | None = None, allow_truncated: bool = False) -> Picture:
    """Read a picture from an open file or pipe; `name` stands in messages. See `read_picture`."""
    if not file.seekable():
        content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise PictureError(f"{name}: is longer than {MOST_BYTES} bytes; save it as a file first")
        file = io.BytesIO(content)
    if not file.read(1):
        raise PictureError(f"{name}: the file is empty")
    limit = max_pixels_by_memory() if max_pixels is None else max_pixels
    try:
        with our_pillow():
            return _read(file, name, limit, lenient=False)
    except _DamagedError:
        if not allow_truncated:
            raise
    with our_pillow(lenient=True):
        picture = _read(file, name, limit, lenient=True)
    lost = ("what is damaged or missing of it", *picture.extras.lost)
    return dataclasses.replace(picture, extras=dataclasses.replace(picture.extras, lost=lost))


def read_page(path: str | os.PathLike[str], page: int, *, max_pixels: int | None = None) -> Picture:
    """Read one page of a TIFF of several, counted from 0. See `read_picture`."""
    limit = max_pixels_by_memory() if max_pixels is None else max_pixels
    try:
        with open(path, "rb") as file, our_pillow():
            return _read(file, f"{os.fspath(path)} (page {page + 1})", limit, lenient=False, page=page)
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_output(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    height: int = 1,
    width: int = 1,
    alpha: bool = False,
) -> None:
    """Refuse what `write_picture` would refuse, before the work is done.

    Args:
        path: the file to be written.
        overwrite: an existing file may be replaced.
        height: rows of the picture to be written.
        width: columns of the picture to be written.
        alpha: the picture has pixels that are not opaque.

    Raises:
        PictureError: the folder does not exist, the file exists, the extension is that of no format that is written, or the
            format cannot hold such a picture.
    """
    path = Path(path)
    check_held(_format(path)[0], str(path), height=height, width=width, alpha=alpha)
    try:
        if path.is_dir():
            raise PictureError(f"{path}: is a folder; give a file name")
        if path.exists() and not path.is_file():
            raise PictureError(f"{path}: is not a regular file")
        if path.exists() and not overwrite:
            raise PictureError(f"{path}: exists already; allow overwriting it or give another name")
        if not path.parent.is_dir():
            raise PictureError(f"{path}: the folder {str(path.parent)!r} does not exist")
    except OSError as error:
        raise PictureError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_held(kind: Format, name: str, *, height: int = 1, width: int = 1, alpha: bool = False) -> None:
    """Refuse a picture that a format cannot hold; `name` stands in the PictureError."""
    if kind.longest_side and max(height, width) > kind.longest_side:
        raise PictureError(
            f"{name}: {width} x {height} is too large for {kind.name} (at most {kind.longest_side} a side); write PNG or TIFF"
        )
    if alpha and not kind.alpha:
        with_alpha = tuple(row for row in FORMATS if row.alpha)
        raise PictureError(f"{name}: {kind.name} cannot keep transparency; write {names(with_alpha)} instead")


def write_picture(
    path: str | os.PathLike[str],
    picture: Picture,
    *,
    overwrite: bool = False,
    quality: int | None = None,
    png_level: int | None = None,
) -> tuple[str, ...]:
    """Write `picture` in the format of the extension of `path`, whole or not at all.

    docs/pictures.md has a table of what each format keeps. A picture with visible transparency is refused rather than flattened
    where the format has none; an alpha that is opaque everywhere is dropped. Colours are converted to sRGB where their profile
    cannot stay.

    Args:
        path: the file to be written.
        picture: what to write.
        overwrite: an existing file may be replaced.
        quality: 1..100 for JPEG (95 where None), AVIF (90; both without chroma subsampling), WebP and JPEG XL (lossless where None);
            the other formats are lossless and ignore it.
        png_level: 0 (large, fast) to 9 of PNG; 1 where None.

    Returns:
        What could not be kept, for the user to read, such as "EXIF".

    Raises:
        UsageError: `quality` or `png_level` is out of range.
        PictureError: see `check_output`; or the file cannot be written, for instance because the disk is full.
    """
    check_output(path, overwrite=overwrite, height=picture.height, width=picture.width, alpha=picture.see_through)
    kind, encode = _format(Path(path))
    with _written(str(path)), opened_whole(path) as file:
        return _encode(file, picture, kind, encode, quality, png_level)


def write_stream(
    file: IO[bytes],
    name: str,
    picture: Picture,
    suffix: str = ".png",
    *,
    quality: int | None = None,
    png_level: int | None = None,
) -> tuple[str, ...]:
    """Write `picture` to a pipe or an open file, in the format of `suffix`; `name` stands in messages. See `write_picture`."""
    kind, encode = _format(Path("stream" + suffix))
    check_held(kind, name, height=picture.height, width=picture.width, alpha=picture.see_through)
    with _written(name):
        content = io.BytesIO()
        lost = _encode(content, picture, kind, encode, quality, png_level)
        file.write(content.getbuffer())
        file.flush()
    return lost


def _format(path: Path) -> tuple[Format, Encoder]:
    written = written_format(path)
    if written is None:
        raise PictureError(f"{path}: cannot write {path.suffix!r} files; use one of {', '.join(WRITTEN_SUFFIXES)}")
    return written


def _encode(
    file: IO[bytes], picture: Picture, kind: Format, encode: Encoder, quality: int | None, png_level: int | None
) -> tuple[str, ...]:
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality must be 1 to 100, not {quality}")
    if png_level not in (None, *LEVELS):
        raise UsageError(f"png_level must be 0 to 9, not {png_level}")
    samples, metadata, lost = fitted(picture, kind)
    encode(file, samples, metadata, png_level if kind.has_level else quality)
    return lost


@contextlib.contextmanager
def _written(name: str) -> Iterator[None]:
    """Turn what goes wrong while writing into one line about the file."""
    try:
        yield
    except BrokenPipeError:
        raise  # whoever reads has had enough
    except OSError as error:
        raise PictureError(f"{name}: cannot be written: {error.strerror or error}") from error
    except (PictureError, ValueError) as error:
        raise PictureError(f"{name}: cannot be written: {error}") from error


def _read(file: IO[bytes], name: str, max_pixels: int, lenient: bool, page: int | None = None) -> Picture:
    """Read a file that is not empty; `lenient` takes damage for what it gives. `page`: this one; None: the only one."""
    wanted, page = page, page or 0

    def reopen() -> ImageFile.ImageFile:
        file.seek(0)
        image = Image.open(file, formats=PILLOW_FORMATS)
        if page:
            image.seek(page)
        return image

    try:
        image = reopen()
        kind = opened_format(image)
        page = kind.page(image) if wanted is None else wanted
        image.seek(page)
        width, height = image.size
        if reason := too_large(width, height, max_pixels):
            raise PictureError(reason)
        if kind.check is not None and not lenient and (damage := kind.check(image, file)):
            raise _DamagedError(damage)
        with libtiff_errors() as errors:
            decoded = decode(image, reopen)
        if errors and not lenient:
            raise _DamagedError(f"is damaged or truncated: {len(errors)} errors in its compressed data")
        if kind.check_decoded is not None and not lenient and (damage := kind.check_decoded(image, file)):
            raise _DamagedError(damage)
        orientation, exif = read_exif(image)
        extras = read_extras(image, file)
        extras = dataclasses.replace(extras, lost=(*extras.lost, *decoded.lost))
        gray = decoded.samples.shape[-1] <= 2
        icc = None if decoded.converted else profile_of(image, extras, exif, gray)
    except UnidentifiedImageError as error:
        reason = why_not_tiff(file) or f"is not a {names()} picture, or its header is damaged"
        raise PictureError(f"{name}: {reason}") from error
    except PictureError as error:
        raise type(error)(f"{name}: {error}") from error
    except MemoryError as error:
        raise PictureError(f"{name}: does not fit into memory") from error
    except Exception as error:  # Pillow raises nearly anything for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _DamagedError(f"{name}: is damaged or truncated: {reason}") from error

    samples = oriented(decoded.samples, orientation)
    return Picture(
        pixels=np.repeat(samples[..., :1], 3, axis=-1) if gray else np.ascontiguousarray(samples[..., :3]),
        alpha=np.ascontiguousarray(samples[..., -1]) if samples.shape[-1] in (2, 4) else None,
        gray=gray,
        icc=icc,
        exif=exif_as_srgb(exif) if decoded.converted else exif,
        extras=dataclasses.replace(extras, colour_chunks=()) if decoded.converted else extras,
    )


@contextlib.contextmanager
def our_pillow(lenient: bool = False) -> Iterator[None]:
    """Exchange Pillow's limit of pixels for ours and its answer to truncated files, and keep its warnings off the terminal."""
    with _reading, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, truncated = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, lenient
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = limit, truncated
