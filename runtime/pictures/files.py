"""Pictures in and out of files: PNG, JPEG, WebP, TIFF and BMP, at their own depth, with alpha, EXIF and ICC profile."""

import contextlib
import os
import secrets
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.alpha import fill_transparent
from flashrib.runtime.pictures.decode import decode, matching_profile, oriented, read_exif
from flashrib.runtime.pictures.encode import Metadata
from flashrib.runtime.pictures.formats import FORMATS, PILLOW_FORMATS, SUFFIXES, format_of, names, opened_format
from flashrib.runtime.pictures.libtiff import libtiff_errors
from flashrib.runtime.pictures.picture import Picture

__all__ = [
    "MAX_PIXELS",
    "Picture",
    "check_output",
    "fill_transparent",
    "read_picture",
    "write_picture",
]

# Generous for scans, small enough to stop a forged header: 2**30 pixels take 3 GiB at 8 bits per channel.
MAX_PIXELS = 2**30

# Pillow's pixel limit and Python's warning filters belong to the whole process.
_reading = threading.Lock()


def read_picture(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF or BMP file; its content decides, not its name.

    Palettes and transparent values become RGB(A). CMYK becomes 8-bit sRGB through the file's profile. The orientation of the
    EXIF block is applied. An ICC profile that does not fit the pixels is dropped. Of the several pictures in a phone's JPEG
    the first is read, and of a TIFF the only one that is neither a thumbnail nor a mask.

    Args:
        path: the file.
        max_pixels: refuse larger pictures; guards against forged headers.

    Raises:
        PictureError: there is no such file, it is not a picture, it is damaged or truncated, it is an animation or has
            several pages, it is too large, or its kind of pixels is not supported.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PictureError(
                f"{path}: {'is a folder' if os.path.isdir(path) else 'is not a regular file'}, not a picture"
            )
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise PictureError(f"{path}: the file is empty")
            with _unlimited_pillow():
                return _read(file, path, max_pixels)
    except FileNotFoundError as error:
        raise PictureError(f"{path}: there is no such file") from error
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the name
        raise PictureError(f"{os.fspath(path)!r}: cannot be a file name: {error}") from error


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
        PictureError: the folder does not exist, the file exists, the extension is that of no format, or the
            format cannot hold such a picture.
    """
    path = Path(path)
    kind = format_of(path)
    if kind is None:
        raise PictureError(f"{path}: cannot write {path.suffix!r} files; use one of {', '.join(SUFFIXES)}")
    if kind.longest_side and max(height, width) > kind.longest_side:
        raise PictureError(
            f"{path}: {width} x {height} is too large for {kind.name} (at most {kind.longest_side} a side); write PNG or TIFF"
        )
    if alpha and not kind.alpha:
        with_alpha = tuple(row for row in FORMATS if row.alpha)
        raise PictureError(
            f"{path}: {kind.name} cannot keep transparency; write {names(with_alpha, last=', ')} instead"
        )
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


def write_picture(
    path: str | os.PathLike[str], picture: Picture, *, overwrite: bool = False, quality: int | None = None
) -> None:
    """Write `picture` in the format of the extension of `path`, whole or not at all.

    PNG and TIFF keep 16 bits, the others get 8. PNG, WebP and TIFF keep alpha; JPEG and BMP refuse a picture with visible
    transparency rather than flatten it, and drop an alpha that is opaque everywhere. All but WebP keep gray as one channel
    (the mean of the three), all but BMP keep ICC profile and EXIF.

    Args:
        path: the file to be written.
        picture: what to write.
        overwrite: an existing file may be replaced.
        quality: 1..100 for JPEG (95 where None, never with chroma subsampling) and WebP (lossless where None); the other
            formats are lossless and take no notice of it.

    Raises:
        UsageError: `quality` is out of range.
        PictureError: see `check_output`; or the file cannot be written, for instance because the disk is full.
    """
    if quality is not None and not 1 <= quality <= 100:
        raise UsageError(f"quality must be 1 to 100, not {quality}")
    check_output(path, overwrite=overwrite, height=picture.height, width=picture.width, alpha=picture.see_through)
    kind = format_of(path)
    assert kind is not None
    samples = picture.samples(alpha=kind.alpha)
    icc = matching_profile(picture.icc, gray=picture.gray and kind.gray) if kind.icc else None
    try:
        with _replacing(path) as file:
            kind.encode(file, samples, Metadata(icc, picture.exif), quality)
    except OSError as error:
        raise PictureError(f"{path}: cannot be written: {error.strerror or error}") from error
    except (PictureError, ValueError) as error:
        raise PictureError(f"{path}: cannot be written: {error}") from error


def _read(file: IO[bytes], path: str | os.PathLike[str], max_pixels: int) -> Picture:
    """Read an open, non-empty file."""
    page = 0

    def reopen() -> ImageFile.ImageFile:
        file.seek(0)
        image = Image.open(file, formats=PILLOW_FORMATS)
        if page:
            image.seek(page)
        return image

    try:
        image = reopen()
        kind = opened_format(image)
        page = kind.page(image)
        image.seek(page)
        width, height = image.size
        if width * height > max_pixels:
            raise PictureError(
                f"{width} x {height} pixels are more than the limit of {max_pixels}; raise max_pixels if you trust the file"
            )
        with libtiff_errors() as errors:
            decoded = decode(image, reopen)
        if errors:
            raise PictureError(f"is damaged or truncated: {len(errors)} errors in its compressed data")
        if kind.is_complete is not None and not kind.is_complete(file):
            raise PictureError(f"is damaged or truncated: the end of the {kind.name} is missing")
        orientation, exif = read_exif(image)
    except UnidentifiedImageError as error:
        raise PictureError(f"{path}: is not a {names()} picture, or its header is damaged") from error
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from error
    except MemoryError as error:
        raise PictureError(f"{path}: does not fit into memory") from error
    except Exception as error:  # Pillow raises nearly anything for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{path}: is damaged or truncated: {reason}") from error

    samples = oriented(decoded.samples, orientation)
    channels = samples.shape[-1]
    gray = channels <= 2
    return Picture(
        pixels=np.repeat(samples[..., :1], 3, axis=-1) if gray else np.ascontiguousarray(samples[..., :3]),
        alpha=np.ascontiguousarray(samples[..., -1]) if channels in (2, 4) else None,
        gray=gray,
        icc=None if decoded.converted else matching_profile(image.info.get("icc_profile"), gray),
        exif=exif,
    )


@contextlib.contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` at the end, or vanishes if anything goes wrong."""
    # Through a link the file that it points to is replaced, not the link.
    target = Path(path).resolve()
    temporary = target.with_name(f".flashrib-{secrets.token_hex(8)}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _unlimited_pillow() -> Iterator[None]:
    """Exchange Pillow's pixel limit for ours, and keep its warnings off the terminal."""
    with _reading, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
