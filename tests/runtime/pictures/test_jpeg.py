"""The JPEG writer: other decoders read the same pixels as from Pillow's encoder, whatever the bands."""

import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.pictures import jpeg
from flashrib.runtime.pictures.jpeg import JpegWriter


def picture(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    ramp = ((x * 3 + y * 5)[..., None] + np.arange(channels) * 40) % 256
    return ramp.astype(np.uint8)


def by_pillow(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(
        file, "JPEG", quality=quality, subsampling=0
    )
    return np.asarray(Image.open(file)).reshape(pixels.shape)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 60), st.sampled_from([1, 3]), st.integers(1, 5), st.sampled_from([8, 16, 128])
)
def test_pixels_are_those_of_pillow(height: int, width: int, channels: int, pieces: int, band: int) -> None:
    pixels = picture(height, width, channels)
    file = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "BAND_ROWS", band)
        with JpegWriter(file, height, width, channels, 90) as writer:
            for rows in np.array_split(pixels, pieces):
                writer.write(rows)
    seen = np.asarray(Image.open(io.BytesIO(file.getvalue()))).reshape(pixels.shape)
    np.testing.assert_array_equal(seen, by_pillow(pixels, 90))


def test_a_picture_as_wide_as_jpeg_allows() -> None:
    """No more than 65535 blocks lie between two restart markers; more than eight markers count again from the first."""
    pixels = picture(200, 65500, 3)
    file = io.BytesIO()
    with JpegWriter(file, *pixels.shape, quality=50) as writer:
        writer.write(pixels)
    with Image.open(file) as image:
        assert image.size == (65500, 200)
        np.testing.assert_array_equal(np.asarray(image.crop((0, 0, 64, 200))), by_pillow(pixels, 50)[:, :64])


def test_what_belongs_to_it() -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "a description"
    options = {"icc_profile": b"a profile", "exif": exif.tobytes(), "comment": b"hello", "dpi": (300, 300)}
    with JpegWriter(file, 300, 20, 3, 90, options) as writer:
        writer.write(picture(300, 20, 3))
    with Image.open(file) as image:
        image.load()
        assert (image.info["icc_profile"], image.info["comment"], image.info["dpi"]) == (
            b"a profile",
            b"hello",
            (300, 300),
        )
        assert image.getexif()[0x010E] == "a description"


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="1 more rows"), JpegWriter(io.BytesIO(), 1, 2, 3, 90) as writer:
        writer.write(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="1 rows are missing"), JpegWriter(io.BytesIO(), 1, 2, 3, 90):
        pass


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory on this system")
def test_is_coded_into_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow lets other threads run then, and only then."""
    rows = np.random.default_rng(4).integers(0, 256, (16, 40, 3), dtype=np.uint8)
    with jpeg._memory_file() as file:
        assert file.fileno() >= 0
    coded = jpeg._coded(rows, {"quality": 90})
    monkeypatch.delattr(os, "memfd_create")
    assert jpeg._coded(rows, {"quality": 90}) == coded
