"""Reading and writing pictures: what is kept, what is refused, what is left behind."""

import contextlib
import dataclasses
import io
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike
from PIL import Image

from flashrib.runtime.artifacts import files as artifact_files
from flashrib.runtime.errors import FlashribError, PictureError, UsageError
from flashrib.runtime.pictures import files as pictures
from flashrib.runtime.pictures import formats
from flashrib.runtime.pictures.files import (
    Picture,
    check_output,
    read_picture,
    read_stream,
    write_picture,
    write_stream,
)
from tests.runtime.picture_files import SRGB, channels_of, noise, picture, pillow_bytes


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("gray", [False, True], ids=["rgb", "gray"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_png_and_tiff_give_back_what_was_written(
    tmp_path: Path, suffix: str, dtype: DTypeLike, gray: bool, alpha: bool
) -> None:
    written = picture(dtype, gray, alpha, side=200)
    path = tmp_path / f"a{suffix}"
    write_picture(path, written)
    read = read_picture(path)
    assert read.pixels.dtype == dtype
    assert np.array_equal(read.pixels, written.pixels)
    assert (read.alpha is None) == (written.alpha is None)
    if read.alpha is not None and written.alpha is not None:
        assert np.array_equal(read.alpha, written.alpha)
    # Pillow cannot read 16-bit gray TIFF with alpha, so that is written as colour.
    assert read.gray == (gray and not (alpha and dtype == np.uint16 and suffix != ".png"))
    assert (read.height, read.width) == (200, 7)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_files_of_several_strips(tmp_path: Path, dtype: DTypeLike, suffix: str) -> None:
    written = Picture(noise(900, 1000, 3, dtype=dtype))
    write_picture(tmp_path / f"a{suffix}", written)
    assert np.array_equal(read_picture(tmp_path / f"a{suffix}").pixels, written.pixels)


def test_webp_is_lossless_unless_a_quality_is_given(tmp_path: Path) -> None:
    written = picture(alpha=True)
    written.alpha = np.maximum(noise(9, 7), 1)
    write_picture(tmp_path / "a.webp", written)
    read = read_picture(tmp_path / "a.webp")
    assert np.array_equal(channels_of(read), channels_of(written))
    write_picture(tmp_path / "b.webp", written, quality=30)
    assert not np.array_equal(read_picture(tmp_path / "b.webp").pixels, written.pixels)


@pytest.mark.parametrize("gray", [False, True])
def test_bmp_and_jpeg(tmp_path: Path, gray: bool) -> None:
    ramp = np.add.outer(np.arange(32), np.arange(40)).astype(np.uint8)[..., None] + np.zeros(3, np.uint8)
    written = Picture(ramp if gray else ramp + np.array([0, 60, 120], np.uint8), gray=gray)
    write_picture(tmp_path / "a.bmp", written)
    write_picture(tmp_path / "a.jpg", written)
    assert np.array_equal(read_picture(tmp_path / "a.bmp").pixels, written.pixels)
    jpeg = read_picture(tmp_path / "a.jpg")
    assert jpeg.gray == gray
    assert np.abs(jpeg.pixels.astype(int) - written.pixels).max() <= 2


def test_jpeg_is_not_subsampled_and_obeys_quality(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", picture(side=64))
    write_picture(tmp_path / "b.jpg", picture(side=64), quality=40)
    with Image.open(tmp_path / "a.jpg") as image:
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}
    assert (tmp_path / "b.jpg").stat().st_size < (tmp_path / "a.jpg").stat().st_size


def test_16_bits_are_rounded_where_the_format_has_8(tmp_path: Path) -> None:
    levels = np.array([0, 128, 129, 257, 32767, 65406, 65407, 65535], np.uint16)
    write_picture(tmp_path / "a.bmp", Picture(levels[None, :, None] + np.zeros((300, 1, 3), np.uint16)))
    assert read_picture(tmp_path / "a.bmp").pixels[299, :, 1].tolist() == [0, 0, 1, 1, 127, 254, 255, 255]


def test_gray_is_written_as_the_mean_of_nearly_equal_channels(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", Picture(np.array([[[10, 11, 11], [0, 0, 1]]], np.uint8), gray=True))
    assert read_picture(tmp_path / "a.png").pixels.tolist() == [[[11] * 3, [0] * 3]]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_and_profile_survive(tmp_path: Path, suffix: str, dtype: DTypeLike) -> None:
    exif = Image.Exif()
    exif[0x0110], exif[0x011A] = "Camera", 300.0
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09", 0xA002: 7, 0x927C: b"maker's note", 0x829A: 0.25}
    exif[0x8825] = {1: "N", 2: (48.0, 30.0, 0.0)}
    source = pillow_bytes(Image.fromarray(noise(9, 7, 3)), "JPEG", exif=exif, icc_profile=SRGB)
    (tmp_path / "a.jpg").write_bytes(source)
    read = read_picture(tmp_path / "a.jpg")
    read.pixels = read.pixels.astype(dtype)
    write_picture(tmp_path / f"b{suffix}", read)
    # Read twice: what a TIFF says about its own layout must not creep into the EXIF block.
    again = read_picture(tmp_path / f"b{suffix}")
    assert again.icc == SRGB
    block = Image.Exif()
    block.load(again.exif or b"")
    assert set(block) == {0x0110, 0x0112, 0x011A, 0x8769, 0x8825}
    assert block.get_ifd(0x8769) == {0x9003: "2024:05:06 07:08:09", 0x927C: b"maker's note", 0x829A: 0.25}
    assert block.get_ifd(0x8825) == {1: "N", 2: (48.0, 30.0, 0.0)}


def test_a_profile_that_does_not_fit_the_pixels_is_dropped(tmp_path: Path) -> None:
    Image.fromarray(noise(4, 4)).save(tmp_path / "gray.png", icc_profile=SRGB)
    assert read_picture(tmp_path / "gray.png").icc is None
    gray_profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    for suffix, kept in ((".png", gray_profile), (".webp", None)):  # WebP has no gray
        write_picture(tmp_path / f"a{suffix}", Picture(picture(gray=True).pixels, gray=True, icc=gray_profile))
        assert read_picture(tmp_path / f"a{suffix}").icc == kept


def test_the_limit_of_pixels_can_be_set_and_pillows_is_left_alone(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    write_picture(tmp_path / "a.png", picture())
    with pytest.raises(PictureError, match="7 x 9 pixels are more than the limit of 62"):
        read_picture(tmp_path / "a.png", max_pixels=62)
    assert read_picture(tmp_path / "a.png", max_pixels=63).height == 9
    assert before == Image.MAX_IMAGE_PIXELS


def test_names_that_are_no_pictures(tmp_path: Path) -> None:
    cases = {"none.png": "there is no such file", "": "is a folder", "\0": "file name"}
    for name, message in cases.items():
        with pytest.raises(PictureError, match=message):
            read_picture(f"{tmp_path}/{name}")
    with pytest.raises(PictureError, match="is a device"):
        read_picture("/dev/null")


def test_pipes_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    data = pillow_bytes(Image.fromarray(noise(300, 300, 3)), "PNG")
    thread = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    thread.start()
    assert np.array_equal(read_picture(tmp_path / "pipe").pixels, noise(300, 300, 3))
    thread.join()


def test_a_pipe_that_nobody_writes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PictureError, match="nobody has written into this pipe"):
        read_picture(tmp_path / "pipe")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_streams_are_written_and_read(suffix: str) -> None:
    stream = io.BytesIO()
    write_stream(stream, "standard output", picture(), suffix)
    stream.seek(0)
    assert read_stream(stream, "standard input").height == 9
    with pytest.raises(PictureError, match="standard output: JPEG cannot keep transparency"):
        write_stream(stream, "standard output", picture(alpha=True), ".jpg")
    with pytest.raises(PictureError, match="standard input: the file is empty"):
        read_stream(io.BytesIO(), "standard input")


def denied(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "a.png", picture())
    for module in (pictures, artifact_files):
        monkeypatch.setattr(module, "open", denied, raising=False)  # root may read everything
    with pytest.raises(PictureError, match=r"a\.png: cannot be read: Permission denied"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"b\.png: cannot be written: Permission denied"):
        write_picture(tmp_path / "b.png", picture())


@pytest.mark.parametrize(
    ("name", "written", "options", "kind", "message"),
    [
        pytest.param("a.gif", picture(), {}, PictureError, "cannot write '.gif' files; use one of .png", id="suffix"),
        pytest.param("a", picture(), {}, PictureError, "cannot write '' files", id="no-suffix"),
        pytest.param("there.png", picture(), {}, PictureError, "exists already", id="exists"),
        pytest.param("folder.png", picture(), {"overwrite": True}, PictureError, "is a folder", id="folder"),
        pytest.param("pipe.png", picture(), {"overwrite": True}, PictureError, "not a regular file", id="pipe"),
        pytest.param("none/a.png", picture(), {}, PictureError, "none' does not exist", id="no-folder"),
        pytest.param("there.png/a.png", picture(), {}, PictureError, "does not exist", id="file-as-folder"),
        pytest.param("a.jpg", picture(alpha=True), {}, PictureError, "JPEG cannot keep transp", id="jpeg-alpha"),
        pytest.param("a.bmp", picture(alpha=True), {}, PictureError, "write PNG, WebP, TIFF", id="bmp-alpha"),
        pytest.param(
            "a.jpg", Picture(np.zeros((1, 65536, 3), np.uint8)), {}, PictureError, "too large for JPEG", id="jpeg-side"
        ),
        pytest.param(
            "a.webp", Picture(np.zeros((16384, 1, 3), np.uint8)), {}, PictureError, "too large for WebP", id="webp-side"
        ),
        pytest.param("a.jpg", picture(), {"quality": 0}, UsageError, "1 to 100, not 0", id="quality-0"),
        pytest.param("a.jpg", picture(), {"quality": 101}, UsageError, "1 to 100, not 101", id="quality-101"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, name: str, written: Picture, options: dict[str, Any], kind: type[FlashribError], message: str
) -> None:
    (tmp_path / "there.png").write_bytes(b"precious")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind, match=message) as caught:
        write_picture(tmp_path / name, written, **options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.png").read_bytes() == b"precious"


@pytest.mark.parametrize("side", [65500, 16383])
def test_the_largest_sides_are_written(tmp_path: Path, side: int) -> None:
    suffix = {65500: ".jpg", 16383: ".webp"}[side]
    check_output(tmp_path / f"a{suffix}", height=side, width=1)
    with pytest.raises(PictureError, match=f"at most {side} a side"):
        check_output(tmp_path / f"a{suffix}", height=side + 1, width=1)
    write_picture(tmp_path / f"a{suffix}", Picture(np.zeros((side, 1, 3), np.uint8)))


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_an_alpha_that_hides_nothing_is_dropped_where_there_is_no_place_for_it(tmp_path: Path, suffix: str) -> None:
    write_picture(tmp_path / f"a{suffix}", Picture(noise(9, 7, 3), np.full((9, 7), 255, np.uint8)))
    assert read_picture(tmp_path / f"a{suffix}").alpha is None
    write_picture(tmp_path / "a.png", Picture(noise(9, 7, 3), np.full((9, 7), 255, np.uint8)))
    assert read_picture(tmp_path / "a.png").alpha is not None


def test_overwriting_goes_through_links_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.png", tmp_path / "link.png"
    write_picture(target, picture())
    link.symlink_to(target)
    new = picture(np.uint16)
    write_picture(link, new, overwrite=True)
    assert link.is_symlink()
    assert np.array_equal(read_picture(target).pixels, new.pixels)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "link.png", "real"]


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", picture())
    (tmp_path / "a.png").chmod(0o604)
    write_picture(tmp_path / "a.png", picture(), overwrite=True)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o604


def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_picture(tmp_path / "a.png", picture())
    finally:
        os.umask(mask)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on file sizes behaves like a full disk on Linux only")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_a_full_disk_gives_one_line_and_leaves_the_old_file(tmp_path: Path, suffix: str, dtype: DTypeLike) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"precious")
    written = Picture(noise(200, 300, 3, dtype=dtype))
    with files_up_to(10_000), pytest.raises(PictureError, match=r"cannot be written: File too large$"):
        write_picture(path, written, overwrite=True)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file: io.BufferedWriter, *_: object) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    png = formats.FORMATS[0]
    monkeypatch.setitem(formats._BY_SUFFIX, ".png", dataclasses.replace(png, encode=interrupted))
    with pytest.raises(KeyboardInterrupt):
        write_picture(tmp_path / "a.png", picture())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Picture(noise(4, 4)), id="two-dimensions"),
        pytest.param(lambda: Picture(noise(4, 4, 4)), id="four-channels"),
        pytest.param(lambda: Picture(np.zeros((4, 4, 3), np.float32)), id="floats"),
        pytest.param(lambda: Picture(np.zeros((0, 4, 3), np.uint8)), id="no-rows"),
        pytest.param(lambda: Picture(noise(4, 4, 3), noise(4, 5)), id="alpha-of-another-size"),
        pytest.param(lambda: Picture(noise(4, 4, 3), noise(4, 4, dtype=np.uint16)), id="alpha-of-another-type"),
    ],
)
def test_a_picture_checks_its_arrays(make: Callable[[], Picture]) -> None:
    with pytest.raises(PictureError, match="must be"):
        make()
