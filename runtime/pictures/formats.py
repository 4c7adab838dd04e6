"""The table of picture formats: how each is recognised, read and written, and what it can hold.

A format is added by a row of `FORMATS`; everything that reads, writes or lists pictures asks this table.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray
from PIL import ImageFile

from flashrib.runtime.pictures.decode import png_is_complete
from flashrib.runtime.pictures.encode import (
    Metadata,
    encode_bmp,
    encode_jpeg,
    encode_png,
    encode_tiff,
    encode_webp,
)
from flashrib.runtime.pictures.pages import only_frame, only_page

Encoder = Callable[[IO[bytes], NDArray[Any], Metadata, int | None], None]
"""Writes samples (H, W, 1 to 4), uint8 or uint16, what belongs to them, in a quality of 1 to 100 or the usual one."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A picture format.

    Attributes:
        name: as people write it.
        suffixes: extensions of its files, in small letters, the usual one first.
        opened_as: what Pillow calls it when it opens such a file.
        encode: writes it; 16 bits are rounded to 8 where it has not more.
        alpha: it can hold transparency.
        gray: it can hold gray as one channel.
        icc: it can hold an ICC profile.
        page: which of its pictures is read; raises PictureError where one alone would lose others.
        is_complete: whether an open file has its end, for what Pillow does not notice.
        longest_side: pixels that it can hold at most, if it has such a limit.
    """

    name: str
    suffixes: tuple[str, ...]
    opened_as: tuple[str, ...]
    encode: Encoder
    alpha: bool = False
    gray: bool = True
    icc: bool = True
    page: Callable[[ImageFile.ImageFile], int] = only_frame
    is_complete: Callable[[IO[bytes]], bool] | None = None
    longest_side: int | None = None


FORMATS = (
    Format("PNG", (".png",), ("PNG",), encode_png, alpha=True, is_complete=png_is_complete),
    Format("JPEG", (".jpg", ".jpeg"), ("JPEG", "MPO"), encode_jpeg, longest_side=65500),
    Format("WebP", (".webp",), ("WEBP",), encode_webp, alpha=True, gray=False, longest_side=16383),
    Format("TIFF", (".tif", ".tiff"), ("TIFF",), encode_tiff, alpha=True, page=only_page),
    Format("BMP", (".bmp",), ("BMP", "DIB"), encode_bmp, icc=False),
)
SUFFIXES = tuple(suffix for row in FORMATS for suffix in row.suffixes)
PILLOW_FORMATS = tuple(row.opened_as[0] for row in FORMATS)
"""Decoders that Pillow may try; it comes to MPO by way of JPEG."""

_BY_SUFFIX = {suffix: row for row in FORMATS for suffix in row.suffixes}
_BY_PILLOW = {name: row for row in FORMATS for name in row.opened_as}


def format_of(path: str | os.PathLike[str]) -> Format | None:
    """Return the format that the extension of `path` stands for, or None."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())


def opened_format(image: ImageFile.ImageFile) -> Format:
    """Return the format of a picture that Pillow has opened."""
    return _BY_PILLOW[image.format or ""]


def names(formats: tuple[Format, ...] = FORMATS, last: str = " or ") -> str:
    """Return "PNG, JPEG, WebP, TIFF or BMP"."""
    *others, final = (row.name for row in formats)
    return ", ".join(others) + last + final
