"""Every kind of pixels and metadata, and files that are not what they should be."""

import contextlib
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray
from PIL import Image, ImageOps, TiffImagePlugin

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.files import read_picture
from tests.runtime.picture_files import SRGB, channels_of, noise, pillow_bytes, png_bytes, tiff_bytes


def full(key: NDArray[np.bool_], dtype: DTypeLike) -> NDArray[Any]:
    return np.where(key, np.iinfo(dtype).max, 0).astype(dtype)[..., None]


GRAY16, LA16, RGB16, RGBA16 = (noise(11, 5, c, dtype=np.uint16) for c in (1, 2, 3, 4))
RGB16[0, 0, 0] = 513  # neither byte is zero
ASSOCIATED = np.array([[[30000, 100, 0, 60000], [0, 0, 0, 0], [65535, 1, 2, 65535], [7, 9, 1, 8]]], np.uint16)
STRAIGHT = np.array([[[32768, 109, 0, 60000], [0, 0, 0, 0], [65535, 1, 2, 65535], [57343, 65535, 8192, 8]]], np.uint16)
LEVELS = np.array([[0, 1, 2, 3]], np.uint8)[..., None]
PALETTE = Image.new("P", (2, 1))
PALETTE.putpalette([9, 8, 7, 200, 100, 50])
PALETTE.putpixel((1, 0), 1)


@pytest.mark.parametrize(
    ("data", "expected", "gray"),
    [
        pytest.param(png_bytes(GRAY16), GRAY16, True, id="png-gray-16"),
        pytest.param(png_bytes(LA16), LA16, True, id="png-gray-alpha-16"),
        pytest.param(png_bytes(RGB16), RGB16, False, id="png-rgb-16"),
        pytest.param(png_bytes(RGBA16), RGBA16, False, id="png-rgba-16"),
        pytest.param(
            png_bytes(RGB16, key=tuple(RGB16[3, 2])),
            np.concatenate([RGB16, full((RGB16[3, 2] != RGB16).any(-1), np.uint16)], -1),
            False,
            id="png-rgb-16-transparent-value",
        ),
        pytest.param(
            png_bytes(GRAY16, key=(int(GRAY16[3, 2, 0]),)),
            np.concatenate([GRAY16, full(GRAY16[..., 0] != GRAY16[3, 2, 0], np.uint16)], -1),
            True,
            id="png-gray-16-transparent-value",
        ),
        pytest.param(
            png_bytes(LEVELS, key=(2,), bits=2),
            np.array([[[0, 255], [85, 255], [170, 0], [255, 255]]], np.uint8),
            True,
            id="png-gray-2-transparent-value",
        ),
        pytest.param(tiff_bytes(GRAY16, 1), GRAY16, True, id="tiff-gray-16"),
        pytest.param(tiff_bytes(GRAY16, 1, ">"), GRAY16, True, id="tiff-gray-16-big-endian"),
        pytest.param(tiff_bytes(GRAY16, 0), 65535 - GRAY16, True, id="tiff-gray-16-white-is-zero"),
        pytest.param(
            tiff_bytes(np.array([[[0xAB], [0xCD], [0xEF]]], np.uint8), 1, t256=2, t258=12),
            np.array([[[0xABCA], [0xDEFD]]], np.uint16),
            True,
            id="tiff-gray-12",
        ),
        pytest.param(tiff_bytes(RGB16, 2), RGB16, False, id="tiff-rgb-16"),
        pytest.param(tiff_bytes(RGB16, 2, ">"), RGB16, False, id="tiff-rgb-16-big-endian"),
        pytest.param(tiff_bytes(RGBA16, 2, ">", t338=2), RGBA16, False, id="tiff-rgba-16"),
        pytest.param(tiff_bytes(RGBA16, 2, t338=0), RGBA16[..., :3], False, id="tiff-rgb-16-extra-channel"),
        pytest.param(tiff_bytes(ASSOCIATED, 2, t338=1), STRAIGHT, False, id="tiff-rgba-16-associated"),
        pytest.param(
            pillow_bytes(Image.fromarray(np.array([[True, False]])), "PNG"),
            np.array([[[255], [0]]], np.uint8),
            True,
            id="bilevel",
        ),
        pytest.param(
            pillow_bytes(PALETTE, "PNG"), np.array([[[9, 8, 7], [200, 100, 50]]], np.uint8), False, id="palette"
        ),
        pytest.param(
            pillow_bytes(PALETTE, "PNG", transparency=b"\x20\xf0"),
            np.array([[[9, 8, 7, 32], [200, 100, 50, 240]]], np.uint8),
            False,
            id="palette-with-alpha",
        ),
        pytest.param(
            pillow_bytes(PALETTE, "PNG", transparency=1),
            np.array([[[9, 8, 7, 255], [200, 100, 50, 0]]], np.uint8),
            False,
            id="palette-with-transparent-entry",
        ),
        pytest.param(
            pillow_bytes(PALETTE.convert("RGB"), "PNG", transparency=(9, 8, 7)),
            np.array([[[9, 8, 7, 0], [200, 100, 50, 255]]], np.uint8),
            False,
            id="rgb-transparent-value",
        ),
        pytest.param(
            pillow_bytes(Image.new("CMYK", (2, 1), (0, 255, 255, 0)), "TIFF"),
            np.array([[[255, 0, 0], [255, 0, 0]]], np.uint8),
            False,
            id="cmyk-without-profile",
        ),
        pytest.param(
            pillow_bytes(Image.new("CMYK", (2, 1), (0, 255, 255, 0)), "TIFF", icc_profile=SRGB),
            np.array([[[255, 0, 0], [255, 0, 0]]], np.uint8),
            False,
            id="cmyk-with-a-profile-of-something-else",
        ),
    ],
)
def test_every_kind_of_pixels(tmp_path: Path, data: bytes, expected: NDArray[Any], gray: bool) -> None:
    (tmp_path / "a").write_bytes(data)
    read = read_picture(tmp_path / "a")
    assert read.gray == gray
    assert read.pixels.dtype == expected.dtype
    assert np.array_equal(channels_of(read), expected)
    assert read.icc is None


def cmyk_profile() -> bytes:
    """A printer profile in which black ink alone has L* = 50 (sRGB 119) and paper L* = 100."""
    grid = np.zeros((2, 2, 2, 2, 3), np.uint8)
    grid[..., 1:] = 128
    grid[..., 0, 0], grid[..., 1, 0] = 255, 128
    ramp = bytes(range(256))
    identity = struct.pack(">9l", *[65536 if i % 4 == 0 else 0 for i in range(9)])
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid.tobytes() + ramp * 3
    tags = struct.pack(">L4sLL", 1, b"A2B0", 128 + 16, len(table)) + table
    white = struct.pack(">3l", 63190, 65536, 54061)
    head = struct.pack(">L4sL4s4s4s", 128 + len(tags), bytes(4), 0x02100000, b"prtr", b"CMYK", b"Lab ")
    return (head + bytes(12) + b"acsp" + bytes(28) + white).ljust(128, b"\0") + tags


def test_cmyk_is_converted_through_its_profile_which_is_dropped(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (4, 0, 8, 8))
    image.save(tmp_path / "a.tif", icc_profile=cmyk_profile())
    read = read_picture(tmp_path / "a.tif")
    assert np.abs(read.pixels[0, 0].astype(int) - 119).max() <= 2
    assert read.pixels[0, 7].min() >= 254
    assert read.icc is None


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation_is_applied_and_reset(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Maker"
    image = Image.fromarray(np.kron(noise(2, 3, 3), np.ones((16, 16, 1), np.uint8)))
    image.save(tmp_path / "a", kind, exif=exif)
    read = read_picture(tmp_path / "a")
    with Image.open(tmp_path / "a") as opened:
        assert np.array_equal(read.pixels, np.asarray(ImageOps.exif_transpose(opened)))
    block = Image.Exif()
    block.load(read.exif or b"")
    assert (block[0x0112], block[0x010F]) == (1, "Maker")


def test_orientation_turns_16_bits_and_alpha_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(tiff_bytes(RGBA16, 2, t338=2, t274=6))
    assert np.array_equal(channels_of(read_picture(tmp_path / "a")), np.rot90(RGBA16, -1))


def test_damaged_exif_does_not_keep_a_picture_from_being_read(tmp_path: Path) -> None:
    image = Image.fromarray(noise(4, 4, 3))
    image.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xffdamaged")
    assert read_picture(tmp_path / "a.jpg").height == 4


def test_the_first_picture_of_a_phones_jpeg_is_read(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (40, 200))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    assert np.array_equal(read_picture(tmp_path / "a.jpg").pixels, np.full((8, 8, 3), 40))


@pytest.mark.parametrize("thumbnail_first", [False, True])
def test_a_tiff_with_a_thumbnail_gives_the_full_picture(tmp_path: Path, thumbnail_first: bool) -> None:
    full_size, thumbnail = Image.fromarray(noise(8, 8, 3)), Image.fromarray(noise(2, 2, 3))
    pages = [(full_size, 0), (thumbnail, 1)]
    with TiffImagePlugin.AppendingTiffWriter(tmp_path / "a.tif", True) as file:
        for page, subfile_type in reversed(pages) if thumbnail_first else pages:
            page.save(file, "TIFF", tiffinfo={254: subfile_type})
            file.newFrame()
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, np.asarray(full_size))


def frames(kind: str, count: int = 3) -> bytes:
    images = [Image.fromarray(noise(4, 4 + (kind == "TIFF") * i, 3)) for i in range(count)]
    images = [Image.fromarray(np.asarray(image) // (i + 1)) for i, image in enumerate(images)]
    return pillow_bytes(images[0], kind, save_all=True, append_images=images[1:])


HUGE = b"\x89PNG\r\n\x1a\n" + struct.pack(">L4sLLBBBBB", 13, b"IHDR", 60000, 60000, 8, 2, 0, 0, 0)
HUGE += struct.pack(">L", zlib.crc32(HUGE[12:])) + png_bytes(RGB16)[33:]
ZERO = b"\x89PNG\r\n\x1a\n" + struct.pack(">L4sLLBBBBB", 13, b"IHDR", 0, 5, 8, 2, 0, 0, 0)
ZERO += struct.pack(">L", zlib.crc32(ZERO[12:])) + png_bytes(RGB16)[33:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b"just some text, not a picture", "is not a PNG, JPEG, WebP, TIFF, BMP, GIF", id="text"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "header is damaged", id="only-a-signature"),
        pytest.param(pillow_bytes(Image.new("L", (4, 4)), "PPM"), "is not a PNG, JPEG", id="ppm"),
        pytest.param(
            HUGE, "60000 x 60000 pixels are more than the limit of [0-9]+; .* --max-pixels 3600000000", id="bomb"
        ),
        pytest.param(ZERO, "damaged", id="zero-width"),
        pytest.param(frames("PNG"), "is an animation of 3 frames", id="animated-png"),
        pytest.param(frames("WEBP"), "is an animation of 3 frames", id="animated-webp"),
        pytest.param(frames("GIF"), "is an animation of 3 frames", id="animated-gif"),
        pytest.param(frames("TIFF"), "has 3 pages", id="pages"),
        pytest.param(tiff_bytes(noise(4, 4, 3), 2, t254=1, t330=8), "only a preview", id="raw-with-preview"),
        pytest.param(tiff_bytes(RGB16, 2, t284=2), "it has 1 of 3 strips", id="planes"),
        pytest.param(pillow_bytes(Image.new("F", (4, 4)), "TIFF"), "32-bit floating point pixels", id="float"),
        pytest.param(pillow_bytes(Image.new("I", (4, 4)), "TIFF"), "32-bit integer pixels", id="integers"),
        pytest.param(
            tiff_bytes(noise(4, 4, 3).astype(np.float32), 2, t339=3),
            "is a TIFF with 3 channels of 32 bits, floating point, RGB",
            id="float-rgb",
        ),
        pytest.param(b"II+\0" + bytes(40), "is a BigTIFF", id="bigtiff"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(PictureError, match=message) as caught:
        read_picture(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


PLAIN = Image.fromarray(noise(40, 40, 3))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(pillow_bytes(PLAIN, "PNG"), id="png"),
        pytest.param(png_bytes(RGB16), id="png-16"),
        pytest.param(pillow_bytes(PLAIN, "JPEG"), id="jpeg"),
        pytest.param(pillow_bytes(PLAIN, "JPEG", progressive=True), id="jpeg-progressive"),
        pytest.param(pillow_bytes(PLAIN, "WEBP"), id="webp"),
        pytest.param(pillow_bytes(PLAIN, "WEBP", lossless=True), id="webp-lossless"),
        pytest.param(pillow_bytes(PLAIN, "BMP"), id="bmp"),
        pytest.param(pillow_bytes(PLAIN, "TIFF"), id="tiff"),
        pytest.param(pillow_bytes(PLAIN, "TIFF", compression="tiff_lzw"), id="tiff-lzw"),
        pytest.param(tiff_bytes(RGB16, 2), id="tiff-16"),
    ],
)
def test_truncated_files_are_refused_and_nothing_else_is_printed(
    tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    for length in [*range(1, len(data) - 1, len(data) // 37), len(data) - 8, len(data) - 1]:
        path = tmp_path / "cut"
        path.write_bytes(data[:length])
        with pytest.raises(PictureError) as caught:
            read_picture(path)
        assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    path.write_bytes(data)
    read_picture(path)


def test_scrambled_files_never_raise_anything_but_picture_errors(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "BMP"):
        data = pillow_bytes(Image.fromarray(noise(8, 8, 3)), kind)
        for _ in range(60):
            scrambled = bytearray(data)
            for position in random.integers(0, min(len(data), 200), 3):
                scrambled[position] = random.integers(0, 256)
            (tmp_path / "a").write_bytes(scrambled)
            with contextlib.suppress(PictureError):
                read_picture(tmp_path / "a")
