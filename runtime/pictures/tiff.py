"""What Pillow does not say about a TIFF: that rows are missing, and why it cannot be read (TIFF 6.0, sections 2, 8 and 19)."""

import os
import struct
from typing import IO, Any

from PIL import ImageFile, TiffImagePlugin

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SAMPLE_FORMAT = 322, 323, 324, 325, 339
NONE = 1
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating point", 5: "complex", 6: "complex"}
COLOURS = {
    0: "gray",
    1: "gray",
    2: "RGB",
    3: "palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE Lab",
    9: "ICC Lab",
    32803: "raw camera",
}


def check_tiff(image: ImageFile.ImageFile, file: IO[bytes]) -> str:
    """Return what is missing of the pixels that the size promises, or ""."""
    tags: Any = getattr(image, "tag_v2", {})
    length = file.seek(0, os.SEEK_END)
    if _directory_end(file) > length:
        return "is damaged or truncated: what belongs to its pixels lies behind its end"
    for offset_tag, bytes_tag in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES)):
        ends = [
            offset + count for offset, count in zip(tags.get(offset_tag, ()), tags.get(bytes_tag, ()), strict=False)
        ]
        if max(ends, default=0) > length:
            return f"is damaged or truncated: its pixels end at byte {max(ends)}, the file at {length}"
    width, height = tags.get(WIDTH, 0), tags.get(HEIGHT, 0)
    bits = sum(tags.get(BITS, (1,)))
    planes = tags.get(SAMPLES, 1) if tags.get(PLANAR, 1) == 2 else 1
    if TILE_OFFSETS in tags:
        across, down = tags.get(TILE_WIDTH, 0), tags.get(TILE_HEIGHT, 0)
        if not (across and down):
            return "is damaged: its tiles have no size"
        needed, found = -(-width // across) * -(-height // down) * planes, len(tags[TILE_OFFSETS])
        return "" if found >= needed else f"is damaged or truncated: it has {found} of {needed} tiles"
    offsets = tags.get(STRIP_OFFSETS, ())
    rows = min(tags.get(ROWS_PER_STRIP, height) or height, height)
    needed = -(-height // max(rows, 1)) * planes
    if len(offsets) < needed:
        return f"is damaged or truncated: it has {len(offsets)} of {needed} strips"
    counts = tags.get(STRIP_BYTES, ())
    expected = height * -(-width * bits // 8) if planes == 1 else 0
    if tags.get(COMPRESSION, NONE) == NONE and counts and sum(counts) < expected:
        return f"is damaged or truncated: it has {sum(counts)} of {expected} bytes of pixels"
    return ""


def _directory_end(file: IO[bytes]) -> int:
    """Return the byte at which the first directory and what it points to end; Pillow leaves out what is missing."""
    file.seek(0)
    order = "<" if file.read(4)[:2] == b"II" else ">"
    start = struct.unpack(order + "L", file.read(4))[0]
    file.seek(start)
    count = struct.unpack(order + "H", file.read(2))[0]
    entries = file.read(12 * count)
    end: int = start + 2 + 12 * count + 4
    for position in range(0, len(entries) - 11, 12):
        _, kind, number, offset = struct.unpack_from(order + "HHLL", entries, position)
        size = number * TYPE_BYTES.get(kind, 0)
        if size > 4:
            end = max(end, offset + size)
    return end


def why_not_tiff(file: IO[bytes]) -> str:
    """Return what keeps a TIFF from being read, if the file is one and Pillow does not know its kind of pixels; else ""."""
    try:
        file.seek(0)
        header = file.read(8)
        if header[:4] not in (b"II*\0", b"MM\0*"):
            return "is a BigTIFF, which is not read" if header[:4] in (b"II+\0", b"MM\0+") else ""
        directory = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(directory.next)
        directory.load(file)
        bits, kinds = directory.get(BITS, (1,)), directory.get(SAMPLE_FORMAT, (1,))
        kind = SAMPLE_FORMATS.get(kinds[0], "unknown")
        colour = COLOURS.get(directory.get(PHOTOMETRIC, -1), "unknown")
        if not directory.get(WIDTH):
            return ""
    except Exception:  # Pillow raises nearly anything for damaged files
        return ""
    return (
        f"is a TIFF with {directory.get(SAMPLES, 1)} channels of {max(bits)} bits, {kind}, {colour}: such pixels are not"
        " supported; save it as RGB or gray with 8 or 16 bits per channel"
    )
