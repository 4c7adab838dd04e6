"""JPEGs whose coded data end before the last block, which decoders fill with gray or leave without detail, and say nothing.

Whether data are missing is tried: the file is decoded once more with further bytes at the end of each scan. In a whole file they come
after the last block and change nothing (ITU-T T.81, section E.2); where blocks are missing, they are taken for them.
"""

import dataclasses
import io
import re
from typing import IO

import numpy as np
from PIL import ImageFile, JpegImagePlugin

_SCAN, _END, _RESTART_INTERVAL, _RESTART, _PROGRESSIVE = 0xDA, 0xD9, 0xDD, 0xD0, 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_SIDE = 8  # of a block
_FLAT = 4  # levels
# A search for a fixed byte is fifty times as fast as one for a run of them, and no other thread runs meanwhile.
_AFTER, _AFTER_RESTARTS = re.compile(rb"\xff[^\x00\xff]"), re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_RESTARTS = re.compile(rb"\xff[\xd0-\xd7]")
_MORE = 512
"""Bytes of a scan that are put behind it once more."""

_OTHERS = bytes.fromhex("5a35c4931e6b") * 16
"""Put behind these, for scans that are nearly empty."""


@dataclasses.dataclass
class _Scans:
    """Where the coded data of each scan lie, (start, stop, restart markers or None), where the last one ends, and what they hold.

    `missing` has the coefficients of each component that no scan has brought to full precision.
    """

    places: list[tuple[int, int, int | None]] = dataclasses.field(default_factory=list)
    end: int = 0
    missing: set[tuple[int, int]] = dataclasses.field(default_factory=set)


def check_jpeg(image: ImageFile.ImageFile, file: IO[bytes]) -> str:
    """Return what is missing of a decoded JPEG, or "".

    Args:
        image: with its pixels, as Pillow opened it.
        file: from which it was opened.
    """
    file.seek(0)
    content = file.read()
    scans = _scans(content)
    if scans.missing:
        return "is damaged or truncated: it lacks a part of its scans"
    # Blocks that are missing are flat. In a picture of several scans they may only lack detail, and CMYK is mixed in other ways.
    if len(scans.places) == 1 and image.mode != "CMYK" and not _ends_flat(image):
        return ""
    longer, position = b"", 0
    for start, stop, restarts in scans.places:
        more = content[start : min(start + _MORE, stop)].replace(b"\xff", b"") + _OTHERS
        if restarts is not None:
            more += bytes([0xFF, _RESTART + restarts % 8]) + more
        longer, position = longer + content[position:stop] + more, stop
    longer += content[position : scans.end] + b"\xff\xd9"
    try:
        other = JpegImagePlugin.JpegImageFile(io.BytesIO(longer))
        other.load()
        same = np.array_equal(np.asarray(image), np.asarray(other))
    except Exception:  # Pillow raises nearly anything; of a whole file nothing
        same = False
    return "" if same else "is damaged or truncated: its data end before the last row"


def _scans(content: bytes) -> _Scans:
    """Find the scans up to the end marker, or to the end of the file."""
    found = _Scans()
    position, interval, progressive = 2, 0, False
    while position + 4 <= len(content):
        marker = content[position + 1]
        if content[position] != 0xFF or marker in (0x00, 0xFF, *_WITHOUT_LENGTH):
            position += 1
            continue
        if marker == _END:
            break
        body = content[position + 4 : position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")]
        position += 4 + len(body)
        if marker == _RESTART_INTERVAL:
            interval = int.from_bytes(body[:2], "big")
        elif marker in _FRAMES:
            progressive = marker == _PROGRESSIVE
            found.missing = {(body[6 + 3 * i], k) for i in range((len(body) - 6) // 3) for k in range(64)}
        elif marker == _SCAN and len(body) >= 4:
            components = body[1 : 1 + 2 * body[0] : 2]
            first, last, precision = body[-3:] if progressive else (0, 63, 0)
            if precision & 15 == 0:
                found.missing -= {(component, k) for component in components for k in range(first, last + 1)}
            # To the next marker; restart markers belong to the data, where there shall be some.
            after = (_AFTER_RESTARTS if interval else _AFTER).search(content, position)
            stop = after.start() if after else len(content)
            while after and stop > position and content[stop - 1] == 0xFF:  # markers may begin with several
                stop -= 1
            restarts = len(_RESTARTS.findall(content, position, stop)) if interval else None
            found.places.append((position, stop, restarts))
            position = stop
    found.end = min(position, len(content))
    return found


def _ends_flat(image: ImageFile.ImageFile) -> bool:
    """Whether the last block is nearly of one brightness; its colours are mixed with those of its neighbours."""
    left, top = ((side - 1) // _SIDE * _SIDE for side in image.size)
    block = np.asarray(image.crop((left, top, *image.size)).convert("L"))
    return int(block.max()) - int(block.min()) <= _FLAT
