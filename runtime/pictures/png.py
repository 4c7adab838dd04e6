"""PNG, written in blocks of rows: filtered and compressed on all cores while the next rows are being made.

A PNG is one stream of zlib. It may be cut at any row: each block is a piece of raw deflate that ends on a byte (a full flush) and
knows nothing of the blocks before, so blocks are made in parallel and laid one behind the other; the check sum over the whole is
combined from theirs. Each row takes the filter whose differences are smallest (PNG 3rd edition, sections 9, 10 and 12.7).
"""

import struct
import zlib
from collections.abc import Iterable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.pictures.blocks import BlockWriter

_fast: Any  # three to ten times as fast as zlib, and as small as zlib's level 3
try:
    from isal import isal_zlib as _fast
except ImportError:
    _fast = None

LEVELS = range(10)
LEVEL = 1  # with isal as small as zlib's level 3; figures: benchmarks/png.py, BENCHMARKS.md
BLOCK_BYTES = 2**20
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
_ADLER = 65521


class PngWriter(BlockWriter[tuple[bytes, int, int]]):
    """Writes the rows of a picture as they come; a context manager, whose end finishes the file.

    Args:
        file: open for writing bytes.
        height: of the picture in rows; `write` takes that many in all.
        width: in pixels.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        bits: 8 or 16 of a sample.
        chunks: (name, content) of the chunks before the pixels, such as (b"iCCP", ...), in the order in which they are written.
        level: 0 (stored) to 9 (smallest); 1 to 3 through isal where it is installed, the others through zlib.
        threads: see `BlockWriter`.
    """

    def __init__(
        self,
        file: IO[bytes],
        height: int,
        width: int,
        channels: int,
        bits: int,
        chunks: Iterable[tuple[bytes, bytes]] = (),
        level: int = LEVEL,
        threads: int | None = None,
    ) -> None:
        self._dtype = np.dtype(np.uint8 if bits == 8 else ">u2")
        super().__init__(height, width, channels, self._dtype.itemsize, threads)
        self._file, self._level = file, level
        self._pixel = channels * self._dtype.itemsize
        self._block = max(1, BLOCK_BYTES // (width * self._pixel))
        self._above = np.zeros((1, width * self._pixel), np.uint8)
        self._adler = 1
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, 0))
        for name, content in chunks:
            self._chunk(name, content)
        self._header: bytes = b"\x78\x01"  # zlib: deflate with a window of 32 KiB

    def write(self, rows: NDArray[Any]) -> None:
        """Take the next rows, of the depth that was announced; see `BlockWriter.write`."""
        self._count(rows)
        for top in range(0, len(rows), self._block):
            block = rows[top : top + self._block].astype(self._dtype, copy=True)
            raw = block.reshape(len(block), -1).view(np.uint8)
            self._submit(_compress, raw, self._above, self._pixel, self._level)
            self._above = raw[-1:]

    def _store(self, coded: tuple[bytes, int, int]) -> None:
        content, adler, length = coded
        self._adler = combined_adler(self._adler, adler, length)
        self._chunk(b"IDAT", self._header + content)
        self._header = b""

    def _end(self) -> None:
        # An empty last block of deflate, and the check sum over everything.
        self._chunk(b"IDAT", self._header + b"\x03\0" + struct.pack(">L", self._adler))
        self._chunk(b"IEND", b"")

    def _chunk(self, name: bytes, content: bytes) -> None:
        crc = zlib.crc32(content, zlib.crc32(name))
        for part in (struct.pack(">L", len(content)) + name, content, struct.pack(">L", crc)):
            self._file.write(part)


def combined_adler(first: int, second: int, length: int) -> int:
    """Return the Adler-32 of two texts joined, from that of each and the length of the second in bytes.

    Source: RFC 1950, section 8.2: the low half is 1 + the sum of the bytes, the high half the sum of the low halves, modulo 65521.
    """
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + length * ((first & 0xFFFF) - 1)
    return (high % _ADLER) << 16 | low % _ADLER


def _compress(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel: int, level: int) -> tuple[bytes, int, int]:
    """Return a block of rows as raw deflate that ends on a byte, the Adler-32 of its filtered bytes, and their number."""
    data = _filtered(rows, above, pixel).data
    library = _fast if _fast is not None and 1 <= level <= 3 else zlib
    compressor = library.compressobj(level, zlib.DEFLATED, -15)
    content = compressor.compress(data) + compressor.flush(zlib.Z_FULL_FLUSH)
    return content, (_fast or zlib).adler32(data), data.nbytes


def _filtered(rows: NDArray[np.uint8], above: NDArray[np.uint8], pixel: int) -> NDArray[np.uint8]:
    """Return the rows, each behind the number of its filter: Sub, Up or Average, whichever leaves the smallest sum of differences.

    Paeth takes as long as all others together and makes photographs 0.5 % smaller: not taken.

    Args:
        rows: (rows, bytes of a row).
        above: (1, bytes of a row), the row before the first; zeros at the top of the picture.
        pixel: bytes of a pixel.
    """
    up = np.concatenate([above, rows[:-1]])
    left = np.zeros_like(rows)
    left[:, pixel:] = rows[:, :-pixel]
    average = (left & up) + ((left ^ up) >> 1)  # floor of the mean without overflow
    candidates = (rows - left, rows - up, rows - average)
    sums = np.stack([np.abs(c.view(np.int8).astype(np.int16)).sum(1, dtype=np.int64) for c in candidates])
    chosen = sums.argmin(0)
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    out[:, 0] = chosen + 1
    for number, candidate in enumerate(candidates):
        mask = chosen == number
        out[mask, 1:] = candidate[mask]
    return out
