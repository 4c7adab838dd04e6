"""The PNG writer: what it writes is what other decoders read, whatever the blocks, levels and threads."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.errors import UsageError
from flashrib.runtime.pictures import png
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.pictures.png import PngWriter, combined_adler


def picture(height: int, width: int, channels: int, bits: int) -> NDArray[np.generic]:
    """Smooth ramps with noise, so that all three filters win somewhere."""
    generator = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    ramp = (x * 3 + (y * 5) * (x > width // 2))[..., None] + np.arange(channels) * 40
    noise = generator.integers(0, 9, (height, width, channels))
    return ((ramp + noise) * (257 if bits == 16 else 1)).astype(np.uint16 if bits == 16 else np.uint8)


def written(pixels: NDArray[np.generic], pieces: int, **options: int) -> bytes:
    file = io.BytesIO()
    height, width, channels = pixels.shape
    with PngWriter(file, height, width, channels, pixels.dtype.itemsize * 8, **options) as writer:
        for rows in np.array_split(pixels, pieces):
            writer.write(rows)
    return file.getvalue()


def unfiltered(data: bytes, pixel: int) -> NDArray[np.generic]:
    """A decoder of the test's own: chunks, one zlib stream with its check sum, filters 1 to 3."""
    at, stream, header = 8, b"", b""
    while at < len(data):
        (length,) = struct.unpack(">L", data[at : at + 4])
        name, content = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">L", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(name + content)
        header = content if name == b"IHDR" else header
        stream += content if name == b"IDAT" else b""
        at += 12 + length
    width, height, bits = struct.unpack(">LLB", header[:9])
    decoder = zlib.decompressobj()
    raw = decoder.decompress(stream)
    assert decoder.eof
    rows = np.frombuffer(raw, np.uint8).reshape(height, -1).astype(np.int64)
    out = np.zeros((height, rows.shape[1] - 1), np.int64)
    for y in range(height):
        for x in range(out.shape[1]):
            left = out[y, x - pixel] if x >= pixel else 0
            up = out[y - 1, x] if y else 0
            add = {1: left, 2: up, 3: (left + up) // 2}[int(rows[y, 0])]
            out[y, x] = (rows[y, x + 1] + add) % 256
    dtype = np.dtype(np.uint8 if bits == 8 else ">u2")
    return out.astype(np.uint8).view(dtype).reshape(height, width, -1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_kind(channels: int, bits: int) -> None:
    pixels = picture(11, 13, channels, bits)
    np.testing.assert_array_equal(unfiltered(written(pixels, 3), channels * bits // 8), pixels)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(0, 9), st.integers(1, 3), st.booleans())
def test_blocks_levels_and_threads(height: int, width: int, pieces: int, level: int, threads: int, isal: bool) -> None:
    pixels = picture(height, width, 3, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "BLOCK_BYTES", 3 * width * 3)
        if not isal:
            patch.setattr(png, "_fast", None)
        data = written(pixels, min(pieces, height), level=level, threads=threads)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


def test_chunks_stand_before_the_pixels() -> None:
    file = io.BytesIO()
    with PngWriter(file, 2, 2, 3, 8, chunks=[(b"gAMA", struct.pack(">L", 45455))]) as writer:
        writer.write(np.zeros((2, 2, 3), np.uint8))
    assert Image.open(file).info["gamma"] == pytest.approx(0.45455)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_combined_check_sum(first: bytes, second: bytes) -> None:
    assert combined_adler(zlib.adler32(first), zlib.adler32(second), len(second)) == zlib.adler32(first + second)


def test_wrong_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="1 more rows"), PngWriter(io.BytesIO(), 1, 2, 3, 8) as writer:
        writer.write(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="1 rows are missing"), PngWriter(io.BytesIO(), 1, 2, 3, 8):
        pass


def test_a_full_disk_is_reported() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        PngWriter(Full(), 1, 2, 3, 8)


def test_levels_of_the_command(tmp_path: Path) -> None:
    picture = Picture(np.tile(np.arange(240, dtype=np.uint8)[:, None, None], (1, 300, 3)))
    sizes = {}
    for level in (0, 1, 9):
        write_picture(tmp_path / f"{level}.png", picture, png_level=level)
        np.testing.assert_array_equal(read_picture(tmp_path / f"{level}.png").pixels, picture.pixels)
        sizes[level] = (tmp_path / f"{level}.png").stat().st_size
    assert sizes[9] <= sizes[1] < sizes[0]
    with pytest.raises(UsageError, match="png_level must be 0 to 9"):
        write_picture(tmp_path / "x.png", picture, png_level=10)
