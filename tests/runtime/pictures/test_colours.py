"""Colours by numbers: what a result shows in sRGB against the input, judged by LittleCMS and by the formulas of the standards."""

import importlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures import profiles
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.pictures.formats import FORMATS
from flashrib.runtime.pictures.imresize import imresize
from tests.runtime.picture_files import noise, pillow_bytes

ROWS, COLUMNS = np.mgrid[0:24, 0:32]
SCENE = np.stack([40 + ROWS * 7, 60 + COLUMNS * 4, 220 - ROWS * 3 - COLUMNS * 2], axis=-1).astype(np.uint8)
ADOBE = profiles.adobe_rgb()
P3 = profiles.rgb_profile("P3", profiles.P3_XY, profiles.D65, profiles.SRGB_CURVE)
SUFFIXES = [row.suffixes[0] for row in FORMATS if row.encode]


def with_chunks(*chunks: tuple[bytes, bytes], image: Image.Image | None = None, **options: Any) -> bytes:
    """A PNG with these chunks before its pixels."""
    data = pillow_bytes(image or Image.fromarray(SCENE), "PNG", **options)
    extra = b"".join(struct.pack(">L", len(d)) + n + d + struct.pack(">L", zlib.crc32(n + d)) for n, d in chunks)
    return data[:33] + extra + data[33:]


def adobe_exif() -> bytes:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    return exif.tobytes()


def decoded(encoded: NDArray[Any], exponent: float) -> NDArray[np.float64]:
    """sRGB values of samples with a pure exponent and sRGB's primaries."""
    linear = (encoded / 255.0) ** exponent
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def shown(image: Image.Image, profile: bytes | None) -> NDArray[np.float64]:
    """The picture in sRGB, 0..1, (H, W, 3), through LittleCMS."""
    if profile is None:
        return np.asarray(image.convert("RGB")) / 255.0
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    image = image.convert({b"GRAY": "L", b"CMYK": "CMYK"}.get(profile[16:20], "RGB"))
    converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC, outputMode="RGB"
    )
    assert converted is not None
    return np.asarray(converted) / 255.0


CHRM_P3 = struct.pack(">8L", *(round(v * 100000) for pair in (profiles.D65, *profiles.P3_XY) for v in pair))
P3_22 = profiles.rgb_profile("P3", profiles.P3_XY, profiles.D65, (2.2,))
JPEG_ADOBE = pillow_bytes(Image.fromarray(SCENE), "JPEG", quality=100, subsampling=0, icc_profile=ADOBE)
JPEG_EXIF = pillow_bytes(Image.fromarray(SCENE), "JPEG", quality=100, subsampling=0, exif=adobe_exif())
GRAY = Image.fromarray(SCENE[..., 1])


def with_nclx(primaries: int, transfer: int) -> bytes:
    """An AVIF without a profile that says so of its colours."""
    data = pillow_bytes(Image.fromarray(SCENE), "AVIF", quality=100, subsampling="4:4:4", icc_profile=b"")
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def cmyk_profile() -> bytes:
    """An ICC profile of CMYK: CIE Lab at the corners of the cube (ICC.1:2022, 10.10, lut8Type), linear between."""
    corners = []
    for i in range(16):
        cyan, magenta, yellow, black = (i >> 3 & 1, i >> 2 & 1, i >> 1 & 1, i & 1)
        light = (95 - 35 * cyan - 40 * magenta - 8 * yellow) * (1 - black)
        a, b = (-35 * cyan + 70 * magenta) * (1 - black), (-45 * cyan - 5 * magenta + 85 * yellow) * (1 - black)
        corners += [round(max(light, 0) * 2.55), 128 + a, 128 + min(b, 127)]
    identity = struct.pack(">9l", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = (
        b"mft1"
        + bytes(4)
        + bytes((4, 3, 2, 0))
        + identity
        + bytes(range(256)) * 4
        + bytes(corners)
        + bytes(range(256)) * 3
    )
    text = b"text" + bytes(4) + b"none\0"
    name = b"desc" + bytes(4) + struct.pack(">L", 5) + b"CMYK\0" + bytes(4 + 4 + 2 + 1 + 67)
    white = b"XYZ " + bytes(4) + struct.pack(">3l", *(round(float(value) * 65536) for value in profiles.D50_XYZ))
    tags = {b"desc": name, b"cprt": text, b"wtpt": white, b"A2B0": table}
    offset, directory, body = 132 + 12 * len(tags), struct.pack(">L", len(tags)), b""
    for tag, content in tags.items():
        directory += struct.pack(">4sLL", tag, offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">L4sL4s4s4s", offset + len(body), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header = (header + bytes(12) + b"acsp").ljust(68, b"\0") + white[8:]
    return header.ljust(128, b"\0") + directory + body


CMYK = cmyk_profile()
INK = Image.fromarray(np.concatenate([SCENE, SCENE[..., :1] // 4], axis=-1), "CMYK")
JPEG_CMYK = pillow_bytes(INK, "JPEG", quality=100, subsampling=0, icc_profile=CMYK)
AVIF_P3 = with_nclx(12, 13)
INPUTS: dict[str, tuple[bytes, NDArray[np.float64]]] = {
    "plain": (pillow_bytes(Image.fromarray(SCENE), "PNG"), SCENE / 255.0),
    "profile gray, gamma 1.8": (
        pillow_bytes(GRAY, "PNG", icc_profile=profiles.gray_profile("g", (1.8,))),
        np.repeat(decoded(SCENE[..., 1:2], 1.8), 3, -1),
    ),
    "profile gray with alpha": (
        pillow_bytes(
            Image.merge("LA", (GRAY, Image.new("L", GRAY.size, 255))),
            "PNG",
            icc_profile=profiles.gray_profile("g", (1.0,)),
        ),
        np.repeat(decoded(SCENE[..., 1:2], 1.0), 3, -1),
    ),
    "profile P3": (pillow_bytes(Image.fromarray(SCENE), "PNG", icc_profile=P3), shown(Image.fromarray(SCENE), P3)),
    "profile Adobe RGB in a JPEG": (JPEG_ADOBE, shown(Image.open(io.BytesIO(JPEG_ADOBE)), ADOBE)),
    "profile CMYK in a TIFF": (pillow_bytes(INK, "TIFF", icc_profile=CMYK), shown(INK, CMYK)),
    "profile CMYK in a JPEG": (JPEG_CMYK, shown(Image.open(io.BytesIO(JPEG_CMYK)), CMYK)),
    "nclx of P3 in an AVIF": (AVIF_P3, shown(Image.open(io.BytesIO(AVIF_P3)), P3)),
    "nclx of BT.709 in an AVIF": (with_nclx(1, 1), np.asarray(Image.open(io.BytesIO(with_nclx(1, 1)))) / 255.0),
    "EXIF of Adobe RGB": (JPEG_EXIF, shown(Image.open(io.BytesIO(JPEG_EXIF)), ADOBE)),
    "gAMA 1.0": (with_chunks((b"gAMA", struct.pack(">L", 100000))), decoded(SCENE, 1.0)),
    "gAMA 0.55": (with_chunks((b"gAMA", struct.pack(">L", 55000))), decoded(SCENE, 1 / 0.55)),
    "gAMA of sRGB": (with_chunks((b"gAMA", struct.pack(">L", 45455))), SCENE / 255.0),
    "gAMA of gray": (
        with_chunks((b"gAMA", struct.pack(">L", 100000)), image=GRAY),
        np.repeat(decoded(SCENE[..., 1:2], 1.0), 3, -1),
    ),
    "gAMA and cHRM of P3": (
        with_chunks((b"gAMA", struct.pack(">L", 45455)), (b"cHRM", CHRM_P3)),
        shown(Image.fromarray(SCENE), P3_22),
    ),
    "sRGB before gAMA": (with_chunks((b"sRGB", b"\0"), (b"gAMA", struct.pack(">L", 100000))), SCENE / 255.0),
    "cICP of P3": (with_chunks((b"cICP", bytes([12, 13, 0, 1]))), shown(Image.fromarray(SCENE), P3)),
    "cICP before a profile": (
        with_chunks((b"cICP", bytes([12, 13, 0, 1])), icc_profile=ADOBE),
        shown(Image.fromarray(SCENE), P3),
    ),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", INPUTS)
def test_a_result_shows_the_colours_of_its_input(tmp_path: Path, name: str, suffix: str) -> None:
    data, wanted = INPUTS[name]
    (tmp_path / "in").write_bytes(data)
    picture = read_picture(tmp_path / "in")
    picture.pixels = imresize(picture.pixels, 2)
    if picture.alpha is not None:
        picture.alpha = picture.alpha.repeat(2, 0).repeat(2, 1)
    path = tmp_path / f"out{suffix}"
    lost = write_picture(path, picture, quality=100 if suffix in (".avif", ".jpg") else None)
    assert not any("profile" in line for line in lost)
    if suffix == ".jxl":
        importlib.import_module("pillow_jxl")
    with Image.open(path) as image:
        result = shown(image, image.info.get("icc_profile"))
    # The enlargement is made from stored values, the reference from what is shown: they differ by the curve between pixels.
    reference = np.stack([imresize(wanted[..., i], 2) for i in range(3)], axis=-1)
    # AVIF of 8 bits is YCbCr: its rounding alone, without any profile, costs 0.003, and Adobe RGB stretches it.
    most = 0.0045 if suffix == ".avif" and "Adobe" in name else 0.004
    assert np.abs(result - np.clip(reference, 0, 1)).mean() < most


@pytest.mark.parametrize("profile", [ADOBE, P3, P3_22], ids=["adobe", "p3", "p3-2.2"])
def test_16_bits_are_converted_as_littlecms_converts_8(profile: bytes) -> None:
    fine = profiles.to_srgb(SCENE.astype(np.uint16) * 257, profile)
    assert fine is not None
    assert np.abs(fine / 65535 - shown(Image.fromarray(SCENE), profile)).max() < 0.003


def test_16_bits_stay_fine_where_colours_are_converted(tmp_path: Path) -> None:
    # Dark values of a linear picture: at 8 bits they would fall onto a few levels.
    ramp = np.linspace(0, 2000, 500).astype(np.uint16)[None, :, None].repeat(3, -1)
    alpha = np.full(ramp.shape[:2], 30000, np.uint16)
    write_picture(tmp_path / "a.tif", Picture(ramp, alpha, gray=True, icc=profiles.gray_profile("linear", (1.0,))))
    read = read_picture(tmp_path / "a.tif")
    assert len(np.unique(read.pixels)) == 500
    linear = np.linspace(0, 2000, 500).astype(np.uint16) / 65535
    wanted = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(read.pixels[0, :, 0] / 65535 - wanted).max() < 1e-4


def test_hdr_of_an_avif_is_hdr_in_a_png(tmp_path: Path) -> None:
    (tmp_path / "in.avif").write_bytes(with_nclx(9, 16))
    picture = read_picture(tmp_path / "in.avif")
    assert (picture.extras.hdr, picture.icc) == ("PQ", None)
    write_picture(tmp_path / "out.png", picture)
    assert read_picture(tmp_path / "out.png").extras.colour_chunks == ((b"cICP", bytes([9, 16, 0, 1])),)
    with pytest.raises(PictureError, match=r"has PQ colours \(HDR\)"):
        write_picture(tmp_path / "out.avif", picture)
    for code in ((1, 13), (2, 2), (300, 13), (9, 7)):
        (tmp_path / "in.avif").write_bytes(with_nclx(*code))
        assert read_picture(tmp_path / "in.avif").extras.colour_chunks == ()


def test_colours_of_hdr_stay_in_png_and_are_refused_elsewhere(tmp_path: Path) -> None:
    chunks = ((b"cICP", bytes([9, 16, 0, 1])), (b"mDCV", bytes(range(24))), (b"cLLI", bytes(8)))
    (tmp_path / "in.png").write_bytes(with_chunks(*chunks))
    picture = read_picture(tmp_path / "in.png")
    write_picture(tmp_path / "out.png", picture)
    again = read_picture(tmp_path / "out.png")
    assert again.extras.colour_chunks == chunks
    assert (again.extras.hdr, again.icc) == ("PQ", None)
    for suffix in (".jpg", ".tif", ".bmp"):
        with pytest.raises(PictureError, match=r"has PQ colours \(HDR\), which .* cannot keep; write a PNG"):
            write_picture(tmp_path / f"out{suffix}", picture)


@pytest.mark.parametrize("name", ["gAMA 1.0", "gAMA and cHRM of P3", "sRGB before gAMA", "cICP of P3"])
def test_png_keeps_its_chunks_for_decoders_that_take_no_profile(tmp_path: Path, name: str) -> None:
    (tmp_path / "in.png").write_bytes(INPUTS[name][0])
    picture = read_picture(tmp_path / "in.png")
    write_picture(tmp_path / "out.png", picture)
    again = read_picture(tmp_path / "out.png")
    assert picture.extras.colour_chunks
    assert again.extras.colour_chunks == picture.extras.colour_chunks
    write_picture(tmp_path / "via.tif", picture)
    assert read_picture(tmp_path / "via.tif").icc == picture.icc


def test_exif_does_not_call_converted_pixels_adobe_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}, 0x9003: "2024:01:01 00:00:00"}
    gray = Picture(
        np.repeat(noise(8, 8, 1), 3, -1), gray=True, icc=profiles.gray_profile("g", (1.0,)), exif=exif.tobytes()
    )
    write_picture(tmp_path / "a.webp", gray)
    read = read_picture(tmp_path / "a.webp")
    block = Image.Exif()
    block.load(read.exif or b"")
    assert block.get_ifd(0x8769) == {0xA001: 1, 0x9003: "2024:01:01 00:00:00"}
    assert read.icc is None


def test_a_damaged_profile_is_named(tmp_path: Path) -> None:
    lost = write_picture(tmp_path / "a.bmp", Picture(noise(4, 4, 3), icc=ADOBE[:16] + b"RGB " + bytes(300)))
    assert lost == ("its ICC profile, which is damaged",)
