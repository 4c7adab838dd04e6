"""`flashrib verify`, with models that repeat pixels; --bisect with a small network."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from flashrib.export.save import hash_of_initializers
from flashrib.runtime.cli import main
from flashrib.runtime.pictures.files import Picture, write_picture
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.picture_files import noise
from tests.runtime.quality.test_parity import write_changed
from tests.runtime.sessions.test_onnxruntime import METADATA, nearest


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("right.onnx"))
    write_changed(Path("wrong.onnx"), "Add", 0.01)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "right.onnx", "right.onnx", "--seed", "5"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "reference  right.onnx (fp32, onnxruntime, x2), seed 5"
    assert lines[2].startswith("passed  right.onnx (fp32, onnxruntime; max abs at most 1e-04")
    assert lines[3].split() == ["input", "size", "max", "abs", "RMS", "ratio", "PSNR"]
    assert lines[4].split() == ["random", "72x72", "0.00e+00", "0.00e+00", "∞"]
    assert len(lines) == 4 + 9


def test_one_line_per_failing_artifact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "right.onnx", "wrong.onnx", "right.onnx", "none.onnx"]) == 1
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith("flashrib: error: wrong.onnx: differs by 1.00e-02 (max abs) on the input ")
    assert first.endswith("but fp32 may differ by 1e-04 (9 of 9 inputs are over their bound)")
    assert second == "flashrib: error: none.onnx: there is no such file"
    assert [line.split()[0] for line in out.splitlines() if ".onnx" in line] == [
        "reference",
        "FAILED",
        "passed",
        "FAILED",
    ]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pictures").mkdir()
    write_picture("pictures/a_HR.png", Picture(noise(80, 80, 3)))
    write_picture("pictures/a_LR.png", Picture(noise(40, 40, 3)))
    assert main(["verify", "right.onnx", "right.onnx", "wrong.onnx", "--pictures", "pictures", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    right, wrong = document["artifacts"]
    assert (document["passed"], right["passed"], wrong["passed"]) == (False, True, False)
    assert (document["scale"], document["reference"]["file"]) == (2, "right.onnx")
    assert right["inputs"][0]["case"] == "a_LR.png"
    assert right["inputs"][0]["psnr"] is None  # infinite
    assert right["inputs"][0]["psnr_truth"] == right["inputs"][0]["psnr_reference"] > 0
    assert right["psnr_drop"] == 0
    assert wrong["bound"]["max_abs"] == 1e-4
    assert all(0.0099 < entry["max_abs"] < 0.0101 for entry in wrong["inputs"])
    assert len(wrong["sha256"]) == 64


def test_bisect_names_the_layer(capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    from flashrib.export.to_onnx import onnx_from_network
    from tests.export.test_bisect import edited

    model = onnx_from_network(write_checkpoint(Path("small.safetensors")))
    edited(model, "blocks.0.ffns.1.dwc")
    onnx.save(model, "edited.onnx")
    assert main(["verify", "small.safetensors", "edited.onnx", "--bisect"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "; first divergence: the output of blocks.0.ffns.1.dwc differs by " in line


def test_bisect_of_what_has_no_layers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "right.onnx", "wrong.onnx", "--bisect"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "; no layer can be named: wrong.onnx: shares no layer's name with right.onnx" in line


def test_bisect_without_its_packages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "flashrib.export.bisect", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["verify", "right.onnx", "wrong.onnx", "--bisect"]) == 1
    assert capsys.readouterr().err == (
        "flashrib: error: --bisect needs the package 'onnx', which is not installed: pip install 'flashrib[export]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--report", "r.txt"], 2, "--report r.txt: the report is a page, so its name must end in .html"),
        (["--report", "none/r.html"], 2, "--report none/r.html: there is no folder none"),
        (["--side", "0"], 2, "'0' is not a whole number from 1 to 4096"),
        (["--pictures", "none"], 1, "none: cannot be read as a folder of pictures"),
    ],
)
def test_bad_arguments(arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "right.onnx", "right.onnx", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1


def test_the_report_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "right.onnx", "right.onnx", "--report", "r.html"]) == 0
    assert Path("r.html").read_text("utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in Path().iterdir()) == ["r.html", "right.onnx", "wrong.onnx"]


def test_a_damaged_file_is_compared_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """One bit of one weight, too small to be over a bound: every other command refuses the file, so this one may not pass it."""
    model = nearest()
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 8), np.float32), "unused"))
    about = dataclasses.replace(METADATA, weights_sha256=hash_of_initializers(model))
    helper.set_model_props(model, about.to_properties())
    content = model.SerializeToString()
    Path("whole.onnx").write_bytes(content)
    weights = np.ones((8, 8), np.float32).tobytes()
    damaged = bytearray(content)
    damaged[content.index(weights)] ^= 1
    Path("damaged.onnx").write_bytes(damaged)
    assert main(["verify", "right.onnx", "whole.onnx"]) == 0
    capsys.readouterr()
    assert main(["verify", "right.onnx", "damaged.onnx"]) == 1
    out, err = capsys.readouterr()
    assert "random" in out  # it was compared
    assert "damaged.onnx: its weights are not those that it was written with" in err
    assert main(["verify", "damaged.onnx", "right.onnx"]) == 1  # no reference
