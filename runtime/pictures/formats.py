"""The table of picture formats: how each is recognised, read and written, and what it can hold.

A format is added by a row of `FORMATS`; everything that reads, writes or lists pictures asks this table.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile, features

from flashrib.runtime.pictures.encode import (
    Metadata,
    encode_avif,
    encode_bmp,
    encode_jpeg,
    encode_jxl,
    encode_png,
    encode_tiff,
    encode_webp,
)
from flashrib.runtime.pictures.jpeg_check import check_jpeg
from flashrib.runtime.pictures.pages import only_frame, only_page
from flashrib.runtime.pictures.png_chunks import check_png
from flashrib.runtime.pictures.tiff import check_tiff

Encoder = Callable[[IO[bytes], NDArray[Any], Metadata, int | None], None]
"""Writes samples (H, W, 1 to 4), uint8 or uint16, what belongs to them, in a quality of 1 to 100 or the usual one."""


@dataclasses.dataclass(frozen=True)
class Format:
    """A picture format.

    Attributes:
        name: as people write it.
        suffixes: extensions of its files, in small letters, the usual one first.
        read_suffixes: further ones that are read, but are no names for what is written: they promise several pictures.
        opened_as: what Pillow calls it when it opens such a file; empty where it is not read.
        encode: writes it; 16 bits are rounded to 8 where it has not more. None where it is not written.
        alpha: it can hold transparency.
        gray: it can hold gray as one channel.
        gray_alpha16: it can hold gray of 16 bits with transparency.
        keeps: what it can hold beside pixels: "icc", "exif" and fields of `Extras`.
        page: which of its pictures is read; raises PictureError where one alone would lose others.
        check: returns what is damaged that Pillow does not notice, or ""; before the pixels are decoded.
        check_decoded: the same, after they are decoded.
        longest_side: pixels that it can hold at most, if it has such a limit.
        longest_block: bytes of EXIF, XMP, IPTC and comment that it can hold at most, if it has such a limit.
        has_level: what its encoder takes as quality is a level of compression, 0 to 9.
    """

    name: str
    suffixes: tuple[str, ...]
    opened_as: tuple[str, ...]
    encode: Encoder | None
    read_suffixes: tuple[str, ...] = ()
    alpha: bool = False
    gray: bool = True
    gray_alpha16: bool = True
    keeps: frozenset[str] = frozenset()
    page: Callable[[ImageFile.ImageFile], int] = only_frame
    check: Callable[[ImageFile.ImageFile, IO[bytes]], str] | None = None
    check_decoded: Callable[[ImageFile.ImageFile, IO[bytes]], str] | None = None
    longest_side: int | None = None
    longest_block: int | None = None
    has_level: bool = False

    def gray_alpha(self, dtype: np.dtype[Any]) -> bool:
        """Whether it can hold gray with transparency of this depth as two channels."""
        return self.gray and (self.gray_alpha16 or dtype != np.uint16)


def _keeps(*names: str) -> frozenset[str]:
    return frozenset(names)


FORMATS: tuple[Format, ...] = (
    Format(
        "PNG",
        (".png",),
        ("PNG",),
        encode_png,
        read_suffixes=(".apng",),
        alpha=True,
        keeps=_keeps("icc", "exif", "density", "xmp", "text", "colour_chunks"),
        check=check_png,
        has_level=True,
    ),
    Format(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".jfi"),
        ("JPEG", "MPO"),
        encode_jpeg,
        read_suffixes=(".mpo",),
        keeps=_keeps("icc", "exif", "density", "xmp", "iptc", "comment"),
        check_decoded=check_jpeg,
        longest_side=65500,
        longest_block=65450,  # a segment of 65533 bytes with the name of what it holds
    ),
    Format(
        "WebP",
        (".webp",),
        ("WEBP",),
        encode_webp,
        alpha=True,
        gray=False,
        keeps=_keeps("icc", "exif", "xmp"),
        longest_side=16383,
    ),
    # Gray with alpha at 16 bits is legal in TIFF, but Pillow and others refuse it.
    Format(
        "TIFF",
        (".tif", ".tiff"),
        ("TIFF",),
        encode_tiff,
        alpha=True,
        gray_alpha16=False,
        keeps=_keeps("icc", "exif", "density", "xmp", "iptc"),
        page=only_page,
        check=check_tiff,
    ),
    Format("BMP", (".bmp", ".dib"), ("BMP", "DIB"), encode_bmp, keeps=_keeps("density")),
    Format("GIF", (".gif",), ("GIF",), None),
    *(
        (
            Format(
                "AVIF",
                (".avif",),
                ("AVIF",),
                encode_avif,
                alpha=True,
                gray=False,
                keeps=_keeps("icc", "exif", "xmp"),
                longest_side=65535,
            ),
        )
        if features.check("avif")
        else ()
    ),
    *(
        (
            Format(
                "JPEG XL",
                (".jxl",),
                (),  # its decoder decodes all pixels before it says how many there are
                encode_jxl,
                alpha=True,
                gray=False,
                keeps=_keeps("exif", "xmp"),
            ),
        )
        if importlib.util.find_spec("pillow_jxl")
        else ()
    ),
)
READ_FORMATS = tuple(row for row in FORMATS if row.opened_as)
SUFFIXES = tuple(suffix for row in READ_FORMATS for suffix in (*row.suffixes, *row.read_suffixes))
"""Extensions of what is read."""

WRITTEN_SUFFIXES = tuple(suffix for row in FORMATS for suffix in row.suffixes if row.encode)
PILLOW_FORMATS = tuple(row.opened_as[0] for row in READ_FORMATS)
"""Decoders that Pillow may try; it comes to MPO by way of JPEG."""

OTHER_SUFFIXES = frozenset(
    f".{name}"
    for names in (
        (
            "heic",
            "heif",
            "avif",
            "avifs",
            "jxl",
            "jp2",
            "j2k",
            "jpx",
            "jxr",
            "psd",
            "psb",
            "xcf",
            "tga",
            "exr",
            "hdr",
            "svg",
        ),
        ("ico", "pcx", "ppm", "pgm", "pnm", "dds", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf", "raw"),
    )
    for name in names
) - set(SUFFIXES)
"""Extensions of pictures that are not read here, so that a folder's listing can say what it passes over."""

_BY_SUFFIX: dict[str, Format] = {suffix: row for row in FORMATS for suffix in (*row.suffixes, *row.read_suffixes)}
_BY_PILLOW: dict[str, Format] = {name: row for row in FORMATS for name in row.opened_as}


def format_of(path: str | os.PathLike[str]) -> Format | None:
    """Return the format that the extension of `path` stands for, or None."""
    return _BY_SUFFIX.get(Path(path).suffix.lower())


def written_format(path: str | os.PathLike[str]) -> tuple[Format, Encoder] | None:
    """Return the format in which a file of this name is written, and what writes it; None where it is not."""
    row = format_of(path)
    if row is None or row.encode is None or Path(path).suffix.lower() in row.read_suffixes:
        return None
    return row, row.encode


def opened_format(image: ImageFile.ImageFile) -> Format:
    """Return the format of a picture that Pillow has opened."""
    return _BY_PILLOW[str(image.format)]


def names(formats: tuple[Format, ...] = READ_FORMATS, last: str = " or ") -> str:
    """Return "PNG, JPEG, WebP, TIFF or BMP"."""
    *others, final = (row.name for row in formats)
    return ", ".join(others) + last + final
