"""TIFFs of 16 bits whose channels lie in planes of their own, which Pillow takes for 8 bits (TIFF 6.0, section 8, PlanarConfiguration).

Each plane is read by Pillow as a gray picture: a directory of its own, which names the plane's strips or tiles, is put behind the file.
"""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from flashrib.runtime.errors import PictureError

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR = 258, 262, 277, 284
_PLACES = (273, 279, 324, 325)  # offsets and sizes of strips, of tiles
_COPIED = (
    256,
    257,
    259,
    266,
    278,
    317,
    322,
    323,
)  # sides, compression, order of bits, rows of a strip, predictor, sides of tiles
_SHORT, _LONG = 3, 4


def is_planar16(image: ImageFile.ImageFile) -> bool:
    """Whether the channels of a picture have more than 8 bits and lie in planes of their own."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(_PLANAR) == 2 and tags.get(_SAMPLES, 1) > 1 and max(tags.get(_BITS, (8,))) > 8


def read_planes(image: ImageFile.ImageFile) -> NDArray[np.uint16]:
    """Return the samples (H, W, channels) of a picture for which `is_planar16` holds, as they are stored.

    Raises:
        PictureError: they have not 16 bits.
        Exception: whatever Pillow raises for damaged files.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]  # of a TIFF
    if set(tags[_BITS]) != {16}:
        raise PictureError(
            f"planes of {max(tags[_BITS])} bits are not supported; save it with 8 or 16 bits per channel"
        )
    count = tags[_SAMPLES]
    file: Any = image.fp
    file.seek(0)
    content = file.read()
    planes = []
    for plane in range(count):
        entries = {_BITS: [16], _PHOTOMETRIC: [1], _SAMPLES: [1], _PLANAR: [1]}
        entries |= {tag: [int(tags[tag])] for tag in _COPIED if tag in tags}
        for tag in _PLACES:
            if tag in tags:
                each = len(tags[tag]) // count
                entries[tag] = list(tags[tag][plane * each : (plane + 1) * each])
        with Image.open(io.BytesIO(_with_directory(content, entries)), formats=("TIFF",)) as one:
            planes.append(np.asarray(one).astype(np.uint16))
    return np.stack(planes, axis=-1)


def _with_directory(content: bytes, entries: dict[int, list[int]]) -> bytes:
    """The file with another first directory, behind its end."""
    order = "<" if content[:2] == b"II" else ">"
    start = len(content) + len(content) % 2
    end = start + 2 + 12 * len(entries) + 4
    rows, values = b"", b""
    for tag, numbers in sorted(entries.items()):
        kind = _LONG if tag in _PLACES or max(numbers) > 0xFFFF else _SHORT
        packed = struct.pack(f"{order}{len(numbers)}{'L' if kind == _LONG else 'H'}", *numbers)
        if len(packed) > 4:
            place = struct.pack(order + "L", end + len(values))
            values += packed
        else:
            place = packed.ljust(4, b"\0")
        rows += struct.pack(order + "HHL", tag, kind, len(numbers)) + place
    directory = struct.pack(order + "H", len(entries)) + rows + bytes(4)
    return content[:4] + struct.pack(order + "L", start) + content[8:] + bytes(len(content) % 2) + directory + values
