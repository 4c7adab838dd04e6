"""JPEGs that were cut and given an end marker are refused, wherever they were cut, and whole ones never."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.files import read_picture
from tests.runtime.picture_files import noise

END = b"\xff\xd9"
LAST = slice(-16, None)  # the last block of a component that is subsampled


def scene(kind: str) -> Image.Image:
    smooth = np.add.outer(np.arange(83) * 2, np.arange(101)).astype(np.uint8)
    pixels: NDArray[np.uint8] = np.stack([smooth, smooth[::-1], 255 - smooth], -1) ^ (noise(83, 101, 3) >> 4)
    if kind in ("white", "middle gray"):  # as blocks that are missing
        pixels[20:] = 255 if kind == "white" else 128
    image = Image.fromarray(pixels)
    return image.convert({"gray": "L", "CMYK": "CMYK"}.get(kind, "RGB"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 2},
        {"restart_marker_blocks": 4},
        {"progressive": True, "restart_marker_rows": 1},
    ],
    ids=["baseline", "progressive", "subsampled", "restarts", "progressive, restarts"],
)
@pytest.mark.parametrize("kind", ["RGB", "gray", "CMYK", "white", "middle gray"])
def test_cut_and_closed(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    file = io.BytesIO()
    scene(kind).save(file, "JPEG", quality=85, **(options if kind != "gray" else options | {"subsampling": 0}))
    data, path = file.getvalue(), tmp_path / "x.jpg"
    path.write_bytes(data)
    whole = read_picture(path).pixels
    header = data.index(b"\xff\xda") + 2
    first = header + int.from_bytes(data[header : header + 2], "big") + 1
    refused = []
    for cut in range(first, len(data) - 2, (len(data) - first) // 12):
        for rest in (b"", data[cut:]) if "progressive" not in options else (b"",):
            path.write_bytes(data[:cut] + END + rest)
            try:
                differs = read_picture(path).pixels != whole
            except PictureError as error:
                refused.append(str(error))
                continue
            differs[LAST, LAST] = False  # what is missing of one block shows in nothing
            assert not differs.any(), cut
    assert len(refused) >= 11
    assert all("is damaged or truncated" in message for message in refused)
    path.write_bytes(data[: len(data) // 2] + END)
    lenient = read_picture(path, allow_truncated=True)
    assert "what is damaged or missing of it" in lenient.extras.lost


def test_what_stands_behind_the_end_is_no_damage(tmp_path: Path) -> None:
    file = io.BytesIO()
    scene("white").save(file, "JPEG", quality=85)
    for tail in (b"", bytes(100), file.getvalue()):
        (tmp_path / "x.jpg").write_bytes(file.getvalue() + tail)
        read_picture(tmp_path / "x.jpg")


def test_fill_bytes_and_trailing_markers_are_no_damage(tmp_path: Path) -> None:
    file = io.BytesIO()
    scene("middle gray").save(file, "JPEG", quality=85)
    data = file.getvalue()[:-2]
    for closed in (b"\xff\xff\xff\xd9", b"\xff\xfe\x00\x04ab\xff\xd9", b"\x00\x00\xff\xd9"):
        (tmp_path / "x.jpg").write_bytes(data + closed)
        read_picture(tmp_path / "x.jpg")
