"""What belongs to a picture stays with it, in the place that the result's format has for it, or is named as lost."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, IptcImagePlugin, PngImagePlugin

from flashrib.runtime.pictures.encode import _photoshop_segment
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.pictures.fit import stripped
from flashrib.runtime.pictures.formats import FORMATS
from flashrib.runtime.pictures.picture import Extras
from tests.runtime.picture_files import SRGB, noise, pillow_bytes

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description xmp:Rating="4" tiff:Orientation="6"'
    b' tiff:ImageWidth="7" exif:PixelXDimension="7"><tiff:Orientation>6</tiff:Orientation>'
    b"<exif:PixelYDimension>9</exif:PixelYDimension></rdf:Description></rdf:RDF></x:xmpmeta>"
)
XMP_AFTER = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description xmp:Rating="4" tiff:Orientation="1">'
    b"<tiff:Orientation>1</tiff:Orientation></rdf:Description></rdf:RDF></x:xmpmeta>"
)
# Pillow turns a TIFF upright by itself, and takes the orientation out of its XMP.
XMP_OF_TIFF = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description xmp:Rating="4" >'
    b"</rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x05\x00\x05title\x1c\x02\x19\x00\x07keyword"
TEXT = (("Title", "A title"), ("parameters", "steps: 20, " * 200), ("Author", "Žofie"))
WRITTEN = [row for row in FORMATS if row.encode and row.opened_as]


def full() -> Picture:
    extras = Extras(density=(300.0, 240.0), xmp=XMP_AFTER, iptc=IPTC, comment=b"a comment", text=TEXT)
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    return Picture(noise(9, 7, 3), icc=SRGB, exif=exif.tobytes(), extras=extras)


@pytest.mark.parametrize("row", WRITTEN, ids=lambda row: row.name)
def test_everything_is_kept_or_named(tmp_path: Path, row: Any) -> None:
    path = tmp_path / f"a{row.suffixes[0]}"
    lost = write_picture(path, full())
    read = read_picture(path)
    assert (read.icc == SRGB) == ("icc" in row.keeps)
    assert (read.exif is not None) == ("exif" in row.keeps) == ("EXIF" not in lost)
    assert (read.extras.xmp == XMP_AFTER) == ("xmp" in row.keeps) == ("XMP" not in lost)
    assert (read.extras.iptc == IPTC) == ("iptc" in row.keeps) == ("IPTC" not in lost)
    texts = (*TEXT, ("Comment", "a comment")) if "text" in row.keeps else ()
    assert read.extras.text == texts
    assert ("its texts (Title, parameters, Author)" in lost) == ("text" not in row.keeps)
    assert (read.extras.comment == b"a comment") == ("comment" in row.keeps)
    assert ("its comment" in lost) == ("comment" not in row.keeps and "text" not in row.keeps)
    if "density" in row.keeps:
        assert read.extras.density == pytest.approx((300, 240), rel=1e-4)
    else:
        block = Image.Exif()
        block.load(read.exif or b"")
        assert (block[0x011A], block[0x011B], block[0x0128]) == (300, 240, 2)
    assert read.extras.lost == ()


@pytest.mark.parametrize("row", WRITTEN, ids=lambda row: row.name)
def test_strip_leaves_the_colours_alone(tmp_path: Path, row: Any) -> None:
    path = tmp_path / f"a{row.suffixes[0]}"
    assert write_picture(path, stripped(full())) == ()
    read = read_picture(path)
    assert read.exif is None
    # A BMP always has a density; Pillow writes 96.
    assert dataclasses.replace(read.extras, density=None if row.name == "BMP" else read.extras.density) == Extras()
    assert (read.icc == SRGB) == ("icc" in row.keeps)


def jpeg(**options: Any) -> bytes:
    return pillow_bytes(Image.fromarray(noise(16, 24, 3)), "JPEG", **options)


def png_with_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "A title")
    info.add_itxt("Author", "Žofie")
    info.add_itxt("XML:com.adobe.xmp", XMP.decode())
    info.add_text("Raw profile type exif", "stale")
    return pillow_bytes(Image.fromarray(noise(9, 7, 3)), "PNG", pnginfo=info, dpi=(300, 300))


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (jpeg(dpi=(300, 300)), Extras(density=(300, 300))),
        (jpeg(xmp=XMP), Extras(xmp=XMP_AFTER)),
        (jpeg(extra=_photoshop_segment(IPTC)), Extras(iptc=IPTC)),
        (jpeg(comment=b"a comment"), Extras(comment=b"a comment")),
        (
            png_with_text(),
            Extras(density=(299.9994, 299.9994), xmp=XMP_AFTER, text=(("Title", "A title"), ("Author", "Žofie"))),
        ),
        (pillow_bytes(Image.fromarray(noise(9, 7, 3)), "WEBP", xmp=XMP), Extras(xmp=XMP_AFTER)),
        (
            pillow_bytes(Image.fromarray(noise(9, 7, 3)), "TIFF", tiffinfo={700: XMP, 33723: IPTC}),
            Extras(xmp=XMP_OF_TIFF, iptc=IPTC),
        ),
        (pillow_bytes(Image.fromarray(noise(9, 7)), "GIF", comment=b"a comment"), Extras(comment=b"a comment")),
    ],
    ids=["jfif", "xmp", "iptc", "comment", "png", "webp", "tiff", "gif"],
)
def test_what_is_read(tmp_path: Path, data: bytes, wanted: Extras) -> None:
    (tmp_path / "a").write_bytes(data)
    assert read_picture(tmp_path / "a").extras == wanted


def test_other_programs_read_what_we_write(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", full())
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.info["dpi"] == (300, 240)
        assert image.info["comment"] == b"a comment"
        assert image.info["xmp"] == XMP_AFTER
        assert IptcImagePlugin.getiptcinfo(image) == {(2, 5): b"title", (2, 25): b"keyword"}
    write_picture(tmp_path / "a.png", full())
    with Image.open(tmp_path / "a.png") as image:
        assert isinstance(image, PngImagePlugin.PngImageFile)
        assert dict(image.text)["Author"] == "Žofie"


def test_the_sign_of_adobe_rgb_is_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03", 0x1001: 24}, 0xA002: 24}
    (tmp_path / "a.jpg").write_bytes(jpeg(exif=exif))
    for name in ("b.jpg", "b.png", "b.webp"):
        write_picture(tmp_path / name, read_picture(tmp_path / "a.jpg"))
        with Image.open(tmp_path / name) as image:
            kept = image.getexif()
            assert kept.get_ifd(0x8769)[0xA001] == 0xFFFF
            assert kept.get_ifd(0xA005) == {1: "R03"}


def test_a_gain_map_and_a_second_picture_are_named(tmp_path: Path) -> None:
    first, second = Image.fromarray(noise(16, 24, 3)), Image.fromarray(noise(16, 24, 3))
    first.save(tmp_path / "stereo.jpg", "MPO", save_all=True, append_images=[second])
    assert read_picture(tmp_path / "stereo.jpg").extras.lost == ("the second picture in the file",)
    xmp = b'<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    (tmp_path / "hdr.jpg").write_bytes(jpeg(xmp=xmp))
    read = read_picture(tmp_path / "hdr.jpg")
    assert (read.extras.lost, read.extras.xmp) == (("its gain map (HDR)",), None)
    assert write_picture(tmp_path / "out.png", read) == ("its gain map (HDR)",)


def test_blocks_that_are_too_long_for_a_jpeg_are_named(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8769] = {0x927C: bytes(70_000)}
    long = Picture(noise(8, 8, 3), exif=exif.tobytes(), extras=Extras(xmp=bytes(70_000), comment=bytes(70_000)))
    lost = write_picture(tmp_path / "a.jpg", long)
    assert [line.split(",")[0] for line in lost] == ["EXIF", "XMP", "its comment"]
    assert read_picture(tmp_path / "a.jpg").exif is None


def test_truncated_files_are_taken_where_that_is_asked_for(tmp_path: Path) -> None:
    for kind in ("JPEG", "PNG"):
        data = pillow_bytes(Image.fromarray(noise(64, 64, 3)), kind)
        (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
        picture = read_picture(tmp_path / "cut", allow_truncated=True)
        assert picture.extras.lost == ("what is damaged or missing of it",)
        assert picture.height == 64
    (tmp_path / "whole").write_bytes(data)
    assert read_picture(tmp_path / "whole", allow_truncated=True).extras.lost == ()
