"""Chunks of a PNG that Pillow passes over: those about colour, and whether the file is whole."""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import IO

from PIL import ImageFile

COLOUR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"gAMA", b"cHRM", b"sRGB")
MOST_BYTES = 64
"""Of a chunk about colour; the longest, cHRM, has 32."""


def colour_chunks(file: IO[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return (name, content) of the chunks about colour that stand before the pixels, but for iCCP; each once."""
    found: dict[bytes, bytes] = {}
    for name, length in _chunks(file):
        if name == b"IDAT":
            break
        if name in COLOUR_CHUNKS and length <= MOST_BYTES:
            found.setdefault(name, file.read(length))
    return tuple(found.items())


def check_png(image: ImageFile.ImageFile, file: IO[bytes]) -> str:
    """Return what is damaged that Pillow does not notice, or "": the end is missing, check sums differ, rows are missing."""
    pixels = zlib.decompressobj()
    size = expected = 0
    for name, length in _chunks(file):
        if name == b"IHDR" and length == 13:
            expected = _size_of_rows(*struct.unpack(">LLBBBBB", file.read(13)))
        elif name == b"IDAT":
            content = file.read(length)
            crc = file.read(4)
            if len(crc) < 4 or struct.unpack(">L", crc)[0] != zlib.crc32(content, zlib.crc32(b"IDAT")):
                return "is damaged or truncated: the check sum of its pixels is wrong"
            try:
                size += _inflated(pixels, content) if size < expected else 0
            except zlib.error as error:
                return f"is damaged: {error}"
        elif name == b"IEND":
            if len(file.read(4)) < 4:
                break
            return "" if size >= expected else f"is damaged or truncated: it has {size} of {expected} bytes of pixels"
    return "is damaged or truncated: the end of the PNG is missing"


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield name and length of each chunk, with the file at the beginning of its content."""
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">L4s", header)
        start = file.tell()
        yield name, length
        file.seek(start + length + 4, os.SEEK_SET)


def _inflated(decompressor: "zlib._Decompress", content: bytes) -> int:
    """Return how many bytes come out, without holding them all."""
    size = 0
    while content:
        size += len(decompressor.decompress(content, 2**20))
        content = decompressor.unconsumed_tail
    return size


def _size_of_rows(width: int, height: int, bits: int, colour: int, _: int, __: int, interlace: int) -> int:
    """Bytes of all filtered rows (PNG 3rd edition, sections 7.2 and 8)."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    size = 0
    for left, top, across, down in passes if interlace else ((0, 0, 1, 1),):
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            size += rows * (1 + -(-columns * channels * bits // 8))
    return size
