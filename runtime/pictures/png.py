"""PNG, written in blocks of rows: filtered and compressed on all cores while the next rows are being made.

A PNG is one stream of zlib. It may be cut at any row: each block is a piece of raw deflate that ends on a byte (a full flush) and
knows nothing of the blocks before, so blocks are made in parallel and laid one behind the other; the check sum over the whole is
combined from theirs. Each row takes the filter whose differences are smallest (PNG 3rd edition, sections 9, 10 and 12.7).
"""

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

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

Rows = NDArray[Any]


class PngWriter:
    """Writes the rows of a picture as they come; a context manager, whose end finishes the file.

    Args:
        file: open for writing bytes.
        height: of the picture in rows; `write` takes that many in all.
        width: in pixels.
        channels: 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        bits: 8 or 16 of a sample.
        chunks: (name, content) of the chunks before the pixels, such as (b"iCCP", ...), in the order in which they are written.
        level: 0 (stored) to 9 (smallest); 1 to 3 through isal where it is installed, the others through zlib.
        threads: blocks in work at a time, >= 1; None: one per CPU that this process may use, at most 16.
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
        self._file, self._left, self._level = file, height, level
        self._shape = (width, channels)
        self._dtype = np.dtype(np.uint8 if bits == 8 else ">u2")
        self._block = max(1, BLOCK_BYTES // (width * channels * self._dtype.itemsize))
        self._threads = threads or min(16, available_cpus())
        self._pool = ThreadPoolExecutor(self._threads, "png")
        self._pending: deque[Future[tuple[bytes, int, int]]] = deque()
        self._above = np.zeros((1, width * channels * self._dtype.itemsize), np.uint8)
        self._adler = 1
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, bits, _COLOUR_TYPES[channels], 0, 0, 0))
        for name, content in chunks:
            self._chunk(name, content)
        self._header: bytes = b"\x78\x01"  # zlib: deflate with a window of 32 KiB

    def write(self, rows: Rows) -> None:
        """Take the next rows, (rows, width, channels), of the depth that was announced; they are copied before this returns.

        Raises:
            ValueError: rows of another width, depth or number of channels, or more than the picture has.
            OSError: the file cannot be written.
        """
        if rows.shape[1:] != self._shape or rows.dtype.itemsize != self._dtype.itemsize or len(rows) > self._left:
            raise ValueError(f"rows {rows.shape} of {rows.dtype} for a picture of {self._left} more rows {self._shape}")
        self._left -= len(rows)
        for top in range(0, len(rows), self._block):
            block = rows[top : top + self._block].astype(self._dtype, copy=True)
            raw = block.reshape(len(block), -1).view(np.uint8)
            pixel = self._shape[1] * self._dtype.itemsize
            self._pending.append(self._pool.submit(_compress, raw, self._above, pixel, self._level))
            self._above = raw[-1:]
            while len(self._pending) > 2 * self._threads:
                self._take()

    def close(self) -> None:
        """Write what is in work and the end of the file.

        Raises:
            ValueError: rows are missing.
            OSError: the file cannot be written.
        """
        if self._left:
            raise ValueError(f"{self._left} rows are missing")
        while self._pending:
            self._take()
        self._pool.shutdown()
        # An empty last block of deflate, and the check sum over everything.
        self._chunk(b"IDAT", self._header + b"\x03\0" + struct.pack(">L", self._adler))
        self._chunk(b"IEND", b"")

    def abandon(self) -> None:
        """Forget what is in work, after an error."""
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def __enter__(self) -> "PngWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _take(self) -> None:
        content, adler, length = self._pending.popleft().result()
        self._adler = combined_adler(self._adler, adler, length)
        self._chunk(b"IDAT", self._header + content)
        self._header = b""

    def _chunk(self, name: bytes, content: bytes) -> None:
        crc = zlib.crc32(content, zlib.crc32(name))
        for part in (struct.pack(">L", len(content)) + name, content, struct.pack(">L", crc)):
            self._file.write(part)


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, >= 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
