"""JPEG, written in bands of rows on all cores.

A JPEG may be interrupted by restart markers, after which nothing depends on what stood before (ITU-T T.81, section B.1.1.3 and E.1.4).
Here each band of rows is coded by Pillow as a picture of its own, with the same tables, and the coded bands are laid one behind the
other with a restart marker between them. So bands are made in parallel, and no more than a few are in memory.
"""

import io
import os
import struct
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.pictures.blocks import BlockWriter

BAND_ROWS = 128
"""Rows of a band at most, a multiple of the 8 of a block."""
BAND_BYTES = 2**21
"""Bytes of a band at most, if it has more than the 8 rows of a block: several are in memory."""
_MOST_BLOCKS = 65535  # between two restart markers


class JpegWriter(BlockWriter[bytes]):
    """Writes the rows of a picture as they come, without chroma subsampling; a context manager, whose end finishes the file.

    Args:
        file: open for writing bytes.
        height: of the picture in rows, at most 65500, as libjpeg says; `write` takes that many in all.
        width: in pixels, at most 65500.
        channels: 1 gray, 3 RGB.
        quality: 1 to 100.
        options: what else Pillow's encoder writes at the beginning: `icc_profile`, `exif`, `dpi`, `comment`, `xmp`.
        threads: see `BlockWriter`.
    """

    def __init__(
        self,
        file: IO[bytes],
        height: int,
        width: int,
        channels: int,
        quality: int,
        options: dict[str, Any] | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(height, width, channels, 1, threads)
        self._file, self._height = file, height
        rows = min(BAND_ROWS, BAND_BYTES // (width * channels))
        blocks = min(max(1, rows // 8), _MOST_BLOCKS // -(-width // 8))
        self._band = 8 * blocks
        self._each = {"quality": quality, "subsampling": 0, "restart_marker_rows": blocks}
        self._first = options or {}  # what the first band has besides
        self._waiting = np.empty((self._band, width, channels), np.uint8)
        self._filled = 0  # rows of it
        self._written = 0

    def write(self, rows: NDArray[Any]) -> None:
        """Take the next rows, of uint8; see `BlockWriter.write`."""
        self._count(rows)
        while len(rows):
            part = rows[: self._band - self._filled]
            self._waiting[self._filled : self._filled + len(part)] = part
            self._filled, rows = self._filled + len(part), rows[len(part) :]
            if self._filled == self._band:
                self._flush()

    def _flush(self) -> None:
        if self._filled:
            rows, self._waiting, self._filled = self._waiting[: self._filled], np.empty_like(self._waiting), 0
            options, self._first = {**self._first, **self._each}, {}
            self._submit(_coded, rows, options)

    def _store(self, coded: bytes) -> None:
        size, scan = _places(coded)
        if self._written:
            self._file.write(bytes([0xFF, 0xD0 + (self._written - 1) % 8]) + coded[scan:-2])
        else:
            # The head of the first band, with the height of the whole picture.
            self._file.write(coded[:size] + struct.pack(">H", self._height) + coded[size + 2 : -2])
        self._written += 1

    def _end(self) -> None:
        self._file.write(b"\xff\xd9")


def _coded(rows: NDArray[np.uint8], options: dict[str, Any]) -> bytes:
    with _memory_file() as file:
        Image.fromarray(rows[..., 0] if rows.shape[-1] == 1 else rows).save(file, "JPEG", **options)
        file.seek(0)
        return file.read()


def _memory_file() -> IO[bytes]:
    """Open a file in memory that has a descriptor where there is such a thing.

    Pillow lets other threads run only while it writes to a descriptor: into a `BytesIO` all threads would code one after the other, and
    keep the one from its work that drives a device.
    """
    return open(os.memfd_create("jpeg"), "w+b") if hasattr(os, "memfd_create") else io.BytesIO()


def _places(coded: bytes) -> tuple[int, int]:
    """Return where the height stands, and where the coded data begin (T.81, sections B.2.2 and B.2.3)."""
    at, size = 2, 0
    while True:
        marker, length = coded[at + 1], int.from_bytes(coded[at + 2 : at + 4], "big")
        if marker == 0xC0:  # start of a baseline frame: length, precision, height
            size = at + 5
        at += 2 + length
        if marker == 0xDA:  # start of the scan
            return size, at
