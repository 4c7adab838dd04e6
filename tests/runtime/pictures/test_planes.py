"""16-bit TIFFs whose channels lie in planes of their own, written by tifffile."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.files import read_picture
from tests.runtime.picture_files import noise

tifffile = pytest.importorskip("tifffile")
LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rowsperstrip": 7},
    "deflate": {"compression": "zlib", "rowsperstrip": 7},
    "predictor": {"compression": "zlib", "predictor": True},
    "tiles": {"tile": (16, 32), "compression": "zlib"},
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("extra", [None, "unassalpha", "unspecified"])
def test_planes(extra: str | None, layout: str, order: str, tmp_path: Path) -> None:
    planes = noise(4 if extra else 3, 40, 60, dtype=np.uint16)
    options = LAYOUTS[layout] | ({"extrasamples": [extra]} if extra else {})
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", byteorder=order, **options)
    read = read_picture(path)
    np.testing.assert_array_equal(read.pixels, np.moveaxis(planes[:3], 0, -1))
    if extra == "unassalpha":
        assert read.alpha is not None
        np.testing.assert_array_equal(read.alpha, planes[3])
    else:
        assert read.alpha is None
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(PictureError, match="truncated"):
        read_picture(path)


def test_colours_multiplied_by_alpha(tmp_path: Path) -> None:
    planes = np.stack([np.full((8, 8), value, np.uint16) for value in (1000, 2000, 4000, 8000)])
    tifffile.imwrite(
        tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate", extrasamples=["assocalpha"]
    )
    wanted = [round(value / 8000 * 65535) for value in (1000, 2000, 4000)]
    assert read_picture(tmp_path / "x.tif").pixels[0, 0].tolist() == wanted


@pytest.mark.parametrize("planar", ["separate", "contig"])
def test_cmyk_of_16_bits_says_that_its_depth_is_lost(planar: str, tmp_path: Path) -> None:
    planes = noise(4, 20, 30, dtype=np.uint16)
    samples = planes if planar == "separate" else np.moveaxis(planes, 0, -1)
    tifffile.imwrite(tmp_path / "16.tif", samples, photometric="separated", planarconfig=planar)
    tifffile.imwrite(tmp_path / "8.tif", np.moveaxis(planes >> 8, 0, -1).astype(np.uint8), photometric="separated")
    read = read_picture(tmp_path / "16.tif")
    np.testing.assert_array_equal(read.pixels, read_picture(tmp_path / "8.tif").pixels)
    assert read.extras.lost == ("its 16 bits per channel (CMYK becomes sRGB of 8 bits)",)
    assert read_picture(tmp_path / "8.tif").extras.lost == ()
