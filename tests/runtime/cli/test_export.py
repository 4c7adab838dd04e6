"""`flashrib export`: the command alone; what it exports has its own tests."""

import json
import re
from pathlib import Path

import pytest

from flashrib.export import check
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.cli import main
from tests.runtime.models import write_checkpoint, write_onnx


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(Path("w.safetensors"))


def test_a_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "w.safetensors", "-o", "m.onnx", "--precision", "fp16", "--io", "fp16"]) == 0
    out, err = capsys.readouterr()
    assert out == "m.onnx\n"
    lines = err.splitlines()
    assert lines[0].startswith("nodes: ")
    assert [line.split(" at ")[0] for line in lines[1:]] == [
        "checked in ONNX Runtime",
        "checked emulated (in float32, every tensor rounded)",
    ]
    about = describe_onnx("m.onnx")
    assert (about.precision, about.io) == ("fp16", "fp16")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["export", "w.safetensors", "-o", "m.onnx", "--tile", "16x24", "--batch", "2", "--clamp", "--json"]) == 0
    )
    out, err = capsys.readouterr()
    about = json.loads(out)
    assert (about["file"], about["batch"], about["opset"], err) == ("m.onnx", 2, 20, "")
    assert about["checks"][0]["size"] == [16, 24]
    assert about["nodes"] <= about["nodes_traced"]
    assert main(["info", "m.onnx"]) == 0
    assert re.search(r"^clamp +yes$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--tile", "16"], 2, "'16' is not height x width in pixels, such as 192x192"),
        (["--tile", "2x16"], 2, "tile 2x16: sst-custom needs at least 5 pixels per side"),
        (["--tile", "16x16", "--dynamic"], 2, "not allowed with argument"),
        (["--opset", "17"], 2, "invalid choice: 17"),
        (["--precision", "bf16", "--opset", "18"], 2, "opset 18 has no convolution in bf16: use --opset 23"),
        (["--scale", "3"], 1, "trained for x2, so it cannot upscale x3"),
        (["-o", "missing/m.onnx"], 2, "there is no folder missing"),
        (["-o", "w.safetensors"], 2, "is the checkpoint itself"),
    ],
)
def test_bad_options(options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = [] if "-o" in options else ["-o", "m.onnx"]
    assert main(["export", "w.safetensors", *output, *options]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err
    assert [p.name for p in Path().iterdir()] == ["w.safetensors"]


def test_an_onnx_file_is_no_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    write_onnx(Path("a.onnx"))
    assert main(["export", "a.onnx", "-o", "m.onnx"]) == 2
    assert "a.onnx: is an ONNX file already" in capsys.readouterr().err


def test_a_failed_check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    reference = check._reference
    monkeypatch.setattr(check, "_reference", lambda *arguments: reference(*arguments) + 1)
    assert main(["export", "w.safetensors", "-o", "m.onnx"]) == 1
    assert "but the bound of fp32 is 0.0001" in capsys.readouterr().err
    assert not Path("m.onnx").exists()
