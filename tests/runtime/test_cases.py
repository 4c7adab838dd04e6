"""Files that users of comparable tools had trouble with, upscaled as their owners would: what comes out, and what is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.cli import main
from flashrib.runtime.pictures.files import read_picture
from tests.places import SHARED
from tests.runtime.models import write_onnx

pytestmark = pytest.mark.shared
CASES = SHARED / "cases"
IMAGES = ["png", "jpg", "webp", "tif", "bmp"]

REFUSED = {
    "bomb_100000.png": "it has 1000 of 30000100000 bytes of pixels|pixels are more than the limit",
    "jpg_no_eoi.jpg": "is damaged or truncated",
    "tif_float32_gray.tif": "32-bit floating point pixels are not supported",
    "tif_float32_rgb.tif": "is a TIFF with 3 channels of 32 bits, floating point, RGB",
    "tif_int16.tif": "signed or 32-bit integer pixels are not supported",
    "damaged/png_half_rows.png": "4632 of 9264 bytes of pixels",
    "damaged/png_idat_flip_silent.png": "the check sum of its pixels is wrong",
    "damaged/cut_eoi_base.jpg": "its data end before the last row",
    "damaged/cut_eoi_prog.jpg": "its data end before the last row",
    "damaged/pic_117027_raw.tif": "it has 1 of 77825 strips",
    "damaged/pic_7087_one.png": "is damaged or truncated|are more than the limit",
}

NOTED = {
    "ultrahdr.jpg": "does not keep its gain map (HDR)",
    "mpo_named.jpg": "does not keep the second picture in the file",
}


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("model.onnx"))


def upscale(*arguments: str) -> int:
    return main(["upscale", *arguments, "--model", "model.onnx"])


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale(str(CASES / name), "-o", "out.png") == 1
    assert not Path("out.png").exists()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert any(part in err for part in REFUSED[name].split("|")), err


@pytest.mark.parametrize("name", NOTED)
def test_what_is_not_kept_is_said(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale(str(CASES / name), "-o", "out.jpg") == 0
    assert f"flashrib: note: out.jpg: {NOTED[name]}" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", IMAGES)
@pytest.mark.parametrize(
    "name",
    [
        "icc_gray_linear.png",
        "icc_gray_linear.jpg",
        "icc_p3.png",
        "png_gama_linear.png",
        "png_chrm_p3.png",
        "png_cicp_p3.png",
    ],
)
def test_colours_hold_in_every_format(name: str, suffix: str) -> None:
    assert upscale(str(CASES / name), "-o", f"out.{suffix}") == 0
    before, after = (read_picture(path) for path in (CASES / name, f"out.{suffix}"))
    mean = [_srgb(picture.pixels, picture.icc, picture.gray).mean() for picture in (before, after)]
    assert abs(mean[0] - mean[1]) < 0.004
    if name.startswith("icc_gray_linear"):
        assert abs(mean[1] - 0.717) < 0.01


def _srgb(pixels: np.ndarray, icc: bytes | None, gray: bool) -> np.ndarray:
    from flashrib.runtime.pictures.profiles import to_srgb

    converted = pixels[..., :1] if gray else pixels
    if icc is not None:
        converted = to_srgb(converted, icc)
    return np.asarray(converted) / 255


def test_what_belongs_to_a_picture_stays() -> None:
    for name in ("jpg_jfif300dpi.jpg", "jpg_xmp.jpg", "jpg_iptc.jpg", "jpg_comment.jpg"):
        assert upscale(str(CASES / name), "-o", "out.jpg", "--overwrite") == 0
        before, after = read_picture(CASES / name).extras, read_picture("out.jpg").extras
        assert after == before
        assert any((before.density, before.xmp, before.iptc, before.comment))
    for name in ("png_text.png", "png_prompt.png", "png_phys_300dpi.png"):
        assert upscale(str(CASES / name), "-o", "out.png", "--overwrite") == 0
        before, after = read_picture(CASES / name).extras, read_picture("out.png").extras
        assert (after.text, after.density) == (before.text, before.density)
        assert before.text or before.density


@pytest.mark.parametrize("name", ["x.avif", "single.gif", "bmp32_v5_alpha.bmp", "tif_lab8.tif", "tif_cmyk16.tif"])
def test_what_is_read(name: str) -> None:
    assert upscale(str(CASES / name), "-o", "out.png") == 0
    with Image.open(CASES / name) as before, Image.open("out.png") as after:
        assert sorted(after.size) == sorted((before.width * 2, before.height * 2))
        if name in (
            "tif_lab8.tif",
            "bmp32_v5_alpha.bmp",
        ):  # Pillow shows Lab, and what lies under transparency, in another way
            return
        colours = [np.asarray(image.convert("RGB")).reshape(-1, 3).mean(0) for image in (before, after)]
    assert np.abs(colours[0] - colours[1]).max() < 3


def test_the_limit_of_pixels_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bomb_100000.png", "icc_p3.png"):
        assert upscale(str(CASES / name), "-o", "out.png", "--max-pixels", "2000") == 1
        assert "pixels are more than the limit of 2000; if you trust" in capsys.readouterr().err


def test_truncated_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale(str(CASES / "jpg_no_eoi.jpg"), "-o", "out.png", "--allow-truncated") == 0
    assert "does not keep what is damaged or missing of it" in capsys.readouterr().err


def test_a_folder_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(CASES, "in")
    Path("in/anim.gif").unlink()  # its result would be that of anim.png
    assert upscale("in", "-o", "out") == 1
    out, err = capsys.readouterr()
    failed = {name for name in REFUSED if "/" not in name}
    assert {line.split("in/")[1].split(":")[0] for line in err.splitlines() if "error: in/" in line} == failed
    assert "bug" not in err
    for path in Path("out").iterdir():
        if path.suffix != ".jsonl":
            with Image.open(path) as image:
                image.load()
    assert "error: out/bmp32_v5_alpha.bmp: BMP cannot keep transparency" in err
    assert f"{len(failed) + 1} failed" in out.splitlines()[-1]
