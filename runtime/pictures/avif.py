"""What an AVIF says about its colours beside an ICC profile, which Pillow does not read (ISO 14496-12, section 12.1.5: `colr`)."""

import struct
from collections.abc import Iterator
from typing import IO

_MOST_BYTES = 2**20
"""Of the boxes before the coded pixels; more than any file needs."""

_SDR = (1, 6, 14, 15)
_SRGB = 13


def cicp_of_avif(file: IO[bytes]) -> bytes | None:
    """Return primaries, transfer, matrix and range (ITU-T H.273) as PNG's chunk cICP has them, for RGB; None where nothing is said.

    The transfer functions of video for standard range stand for sRGB's, as in browsers: files that say so were made from sRGB.
    """
    file.seek(0)
    content = file.read(_MOST_BYTES)
    for start, stop in _boxes(content, 0, len(content), b"meta"):
        for a, b in _boxes(content, start + 4, stop, b"iprp"):
            for c, d in _boxes(content, a, b, b"ipco"):
                for e, f in _boxes(content, c, d, b"colr"):
                    if content[e : e + 4] == b"nclx" and f - e >= 10:
                        primaries, transfer = struct.unpack_from(">HH", content, e + 4)
                        transfer = _SRGB if transfer in _SDR else transfer
                        return bytes((primaries, transfer, 0, 1)) if primaries < 256 > transfer else None
    return None


def _boxes(content: bytes, start: int, stop: int, wanted: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the contents of the boxes of a kind lie."""
    while start + 8 <= stop:
        size, kind = struct.unpack_from(">L4s", content, start)
        head = 8
        if size == 1 and start + 16 <= stop:
            (size,), head = struct.unpack_from(">Q", content, start + 8), 16
        end = stop if size == 0 else start + size
        if size != 0 and size < head:
            return
        if kind == wanted:
            yield start + head, min(end, stop)
        start = end
