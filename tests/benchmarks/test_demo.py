"""The demonstration, with a model that repeats pixels."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo import COLUMN, DETAIL, PICTURES, best_detail, main
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.quality.metrics import psnr
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_onnx(tmp_path / "model.onnx")
    for _ in range(2):  # the second time it replaces its results
        assert main(["--model", str(model), "-o", str(tmp_path / "out")]) == 0
    low, original = (read_picture(PICTURES / f"demo_{kind}.png").pixels for kind in ("lr", "hr"))
    upscaled = read_picture(tmp_path / "out" / "upscaled.png").pixels
    np.testing.assert_array_equal(upscaled, low.repeat(2, 0).repeat(2, 1))
    out, err = capsys.readouterr()
    assert err == ""
    bicubic, ours = map(float, re.findall(r"([\d.]+) dB", out)[-2:])
    assert bicubic == round(psnr(imresize(low, 2), original, 2), 2)
    assert ours == round(psnr(upscaled, original, 2), 2)
    comparison = tmp_path / "out" / "comparison.png"
    assert str(comparison) in out
    sheet = read_picture(comparison).pixels
    assert sheet.shape[1] > 3 * COLUMN
    # The detail stands at the bottom, each pixel enlarged: that of the original on the right.
    top, left = best_detail(imresize(low, 2), upscaled, original)
    detail = original[top : top + DETAIL, left : left + DETAIL]
    enlarged = detail.repeat(COLUMN // DETAIL, 0).repeat(COLUMN // DETAIL, 1)
    np.testing.assert_array_equal(sheet[-12 - COLUMN : -12, -12 - COLUMN : -12], enlarged)


def test_a_missing_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "nowhere.onnx", "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr() == ("", "flashrib: error: nowhere.onnx: there is no such file\n")


def test_another_picture_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_onnx(tmp_path / "model.onnx")
    low = str(PICTURES / "demo_lr.png")
    assert main(["--model", str(model), "-o", str(tmp_path / "out"), "--hr", low]) == 2
    assert capsys.readouterr().err.startswith("demo: error: only like can be compared")


def test_the_detail_is_where_the_error_falls_most() -> None:
    original = noise(150, 200, 3)
    bicubic = np.zeros_like(original)
    upscaled = bicubic.copy()
    upscaled[30:126, 90:186] = original[30:126, 90:186]
    assert best_detail(bicubic, upscaled, original) == (30, 90)
