"""Pictures in and out of files: PNG, JPEG, WebP, TIFF and BMP, at their own depth, with alpha, EXIF and ICC profile."""

import contextlib
import dataclasses
import os
import secrets
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.alpha import fill_transparent
from flashrib.runtime.pictures.decode import (
    decode,
    matching_profile,
    oriented,
    png_is_complete,
    read_exif,
    silent_libtiff,
)
from flashrib.runtime.pictures.encode import encode_bmp, encode_jpeg, encode_png, encode_tiff, encode_webp

__all__ = [
    "FORMAT_BY_SUFFIX",
    "MAX_PIXELS",
    "Picture",
    "check_output",
    "fill_transparent",
    "read_picture",
    "write_picture",
]

FORMAT_BY_SUFFIX = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WebP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
FORMATS_WITH_ALPHA = ("PNG", "WebP", "TIFF")
LONGEST_SIDE = {"JPEG": 65535, "WebP": 16383}
# Generous for scans, small enough to stop a forged header: 2**30 pixels take 3 GiB at 8 bits per channel.
MAX_PIXELS = 2**30

NEW_SUBFILE_TYPE, SUB_IFDS = 254, 330
REDUCED_OR_MASK = 0b101

# Pillow's pixel limit and Python's warning filters belong to the whole process.
_reading = threading.Lock()


@dataclasses.dataclass
class Picture:
    """A picture at its native depth, upright.

    Attributes:
        pixels: (H, W, 3) RGB, uint8 (0..255) or uint16 (0..65535).
        alpha: (H, W) of the same type, 0 = transparent, not multiplied into `pixels`; None where the picture has none.
        gray: the three channels are equal and are written as one.
        icc: ICC profile of the pixels; None stands for sRGB (or gray with sRGB's curve).
        exif: EXIF block ("Exif\\0\\0" and a TIFF structure), orientation 1; None where there is none.

    Raises:
        PictureError: the arrays do not have these shapes and types.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    gray: bool = False
    icc: bytes | None = None
    exif: bytes | None = None

    def __post_init__(self) -> None:
        """Check shapes and types."""
        pixels, alpha = self.pixels, self.alpha
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0 or pixels.dtype not in (np.uint8, np.uint16):
            raise PictureError(f"pixels must be (H, W, 3) of uint8 or uint16, not {pixels.shape} of {pixels.dtype}")
        if alpha is not None and (alpha.shape != pixels.shape[:2] or alpha.dtype != pixels.dtype):
            raise PictureError(
                f"alpha must be {pixels.shape[:2]} of {pixels.dtype} like the pixels, not {alpha.shape} of {alpha.dtype}"
            )

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])


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
        PictureError: the folder does not exist, the file exists, the extension is not one of `FORMAT_BY_SUFFIX`, or the
            format cannot hold such a picture.
    """
    path = Path(path)
    kind = FORMAT_BY_SUFFIX.get(path.suffix.lower())
    if kind is None:
        raise PictureError(f"{path}: cannot write {path.suffix!r} files; use one of {', '.join(FORMAT_BY_SUFFIX)}")
    longest = LONGEST_SIDE.get(kind)
    if longest and max(height, width) > longest:
        raise PictureError(
            f"{path}: {width} x {height} is too large for {kind} (at most {longest} a side); write PNG or TIFF"
        )
    if alpha and kind not in FORMATS_WITH_ALPHA:
        raise PictureError(f"{path}: {kind} cannot keep transparency; write {', '.join(FORMATS_WITH_ALPHA)} instead")
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
    alpha = picture.alpha
    see_through = alpha is not None and bool(alpha.min() < np.iinfo(alpha.dtype).max)
    check_output(path, overwrite=overwrite, height=picture.height, width=picture.width, alpha=see_through)
    kind = FORMAT_BY_SUFFIX[Path(path).suffix.lower()]
    samples = _samples(picture, alpha if kind in FORMATS_WITH_ALPHA else None)
    icc = matching_profile(picture.icc, gray=picture.gray and kind != "WebP")
    try:
        with _replacing(path) as file:
            if kind == "PNG":
                encode_png(file, samples, icc, picture.exif)
            elif kind == "JPEG":
                encode_jpeg(file, samples, icc, picture.exif, quality)
            elif kind == "WebP":
                encode_webp(file, samples, icc, picture.exif, quality)
            elif kind == "TIFF":
                encode_tiff(file, samples, icc, picture.exif)
            else:
                encode_bmp(file, samples)
    except OSError as error:
        raise PictureError(f"{path}: cannot be written: {error.strerror or error}") from error
    except (PictureError, ValueError) as error:
        raise PictureError(f"{path}: cannot be written: {error}") from error


def _read(file: IO[bytes], path: str | os.PathLike[str], max_pixels: int) -> Picture:
    """Read an open, non-empty file."""
    page = 0

    def reopen() -> ImageFile.ImageFile:
        file.seek(0)
        image = Image.open(file, formats=("PNG", "JPEG", "WEBP", "TIFF", "BMP"))
        if page:
            image.seek(page)
        return image

    try:
        image = reopen()
        page = _only_page(image)
        image.seek(page)
        width, height = image.size
        if width * height > max_pixels:
            raise PictureError(
                f"{width} x {height} pixels are more than the limit of {max_pixels}; raise max_pixels if you trust the file"
            )
        with silent_libtiff() if image.format == "TIFF" else contextlib.nullcontext():
            decoded = decode(image, reopen)
        if image.format == "PNG" and not png_is_complete(file):
            raise PictureError("is damaged or truncated: the end of the PNG is missing")
        orientation, exif = read_exif(image)
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{path}: is not a PNG, JPEG, WebP, TIFF or BMP picture, or its header is damaged"
        ) from error
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


def _only_page(image: ImageFile.ImageFile) -> int:
    """Return the page to read.

    Raises:
        PictureError: there are several, and taking one would lose the others silently; or only a preview.
    """
    pages = getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        full = []
        for page in range(pages):
            image.seek(page)
            tags = getattr(image, "tag_v2", {})
            if not tags.get(NEW_SUBFILE_TYPE, 0) & REDUCED_OR_MASK:
                full.append(page)
            elif SUB_IFDS in tags:
                raise PictureError("holds only a preview beside raw camera data; develop it first")
        if len(full) > 1:
            raise PictureError(f"has {len(full)} pages; split it into single pictures first")
        return full[0] if full else 0
    # A phone's JPEG carries depth or gain maps as further pictures ("MPO"); the first is the photograph.
    if pages > 1 and image.format != "MPO":
        raise PictureError(f"is an animation of {pages} frames; extract the frames first")
    return 0


def _samples(picture: Picture, alpha: NDArray[Any] | None) -> NDArray[Any]:
    """Channels to be written: (H, W, 1 gray or 3, and 1 more with alpha)."""
    colour = picture.pixels
    if picture.gray:
        # Pixels that a network made are gray only nearly.
        colour = ((colour.sum(axis=-1, dtype=np.uint32, keepdims=True) + 1) // 3).astype(colour.dtype)
    return colour if alpha is None else np.concatenate([colour, alpha[..., None]], axis=-1)


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
