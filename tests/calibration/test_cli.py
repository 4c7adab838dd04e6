"""The command, and what users get wrong: one line each, and nothing left behind."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from flashrib.runtime.cli import main
from tests.calibration.cases import SIDE, write_model, write_pictures
from tests.model.networks import SMALL

FAST = ["--tile", str(SIDE), "--tiles", "4", "--held-out", "2", "--threads", "1", "--budget", "1dB"]


def command(*more: str, mode: str = "int8", out: str = "out.onnx", model: str = "model.onnx") -> list[str]:
    return ["calibrate", model, "--pictures", "pictures", "-o", out, "--mode", mode, *FAST, *more]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "model.onnx")
    write_pictures(tmp_path / "pictures", count=10)
    return tmp_path


def test_the_tables(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command()) == 0
    shown = capsys.readouterr().out
    assert "blocks.0.ffns.1.proj" in shown
    assert "depthwise" in shown
    assert "chosen" in shown
    assert "11 of 18 products" in shown
    assert main(["info", "out.onnx"]) == 0
    assert "11 layers, " in capsys.readouterr().out
    assert main(["calibrate", "out.onnx", *command()[2:4], "-o", "again.onnx", "--mode", "int8"]) == 1
    assert "out.onnx: is quantized already (int8)" in capsys.readouterr().err


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command("--json", mode="fp8")) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["mode"], document["file"], document["budget_db"]) == ("fp8", "out.onnx", 1.0)
    assert len(document["order"]) == 11


def nothing(folder: Path) -> None:
    pass


def few(folder: Path) -> None:
    for path in sorted((folder / "pictures").iterdir())[7:]:
        path.unlink()


def small(folder: Path) -> None:
    write_pictures(folder / "pictures", count=10, side=2 * SIDE - 1)


def unreadable(folder: Path) -> None:
    for path in (folder / "pictures").iterdir():
        path.write_bytes(b"no picture")


def not_finite(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    tensor = next(t for t in model.graph.initializer if t.name == "first.bias")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * float("inf"), tensor.name))
    # A network that was trained to infinity, not a file that was damaged later.
    kept = [prop for prop in model.metadata_props if prop.key != "flashrib.weights_sha256"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, folder / "model.onnx")


def bf16(folder: Path) -> None:
    write_model(folder / "model.onnx", SMALL, "bf16")


def truncated(folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:3000])


BAD: dict[str, tuple[Callable[[Path], None], list[str], int, str]] = {
    "few pictures": (few, command(), 1, "pictures: 7 pictures are too few to calibrate with: at least 8, better 100"),
    "small pictures": (small, command(), 1, "47x47 pixels are fewer than a tile of 24x24 takes at x2"),
    "unreadable": (unreadable, command(), 1, ".png"),
    "no folder": (nothing, [*command(), "--pictures", "missing"], 1, "missing: cannot be read as a folder of pictures"),
    "not finite": (
        not_finite,
        command(),
        1,
        "the input of the layer blocks.0.attentions.0.qkv is not finite on the tile",
    ),
    "bf16": (bf16, command(), 1, "computes in bf16, which ONNX Runtime cannot run"),
    "truncated": (truncated, command(), 1, "model.onnx: "),
    "no model": (nothing, command(model="missing.onnx"), 1, "missing.onnx: there is no such file"),
    "no ONNX file": (nothing, command(out="out.engine"), 2, "its name must end in .onnx"),
    "no output folder": (nothing, command(out="no/out.onnx"), 2, "there is no folder no: make it first"),
    "onto itself": (nothing, command(out="model.onnx"), 2, "is the model itself"),
    "budget": (nothing, [*command(), "--budget=-1dB"], 2, "'-1dB' is not a loss above 0 in dB"),
    "tight budget": (nothing, [*command(), "--budget", "1e-9dB"], 1, "raise --budget"),
    "mode": (nothing, command(mode="int4"), 2, "invalid choice: 'int4'"),
    "tile": (nothing, [*command(), "--tile", "4"], 2, "a tile of 4: sst-custom needs at least 5 pixels per side"),
    "held out": (nothing, [*command(), "--held-out", "6"], 2, "at most half can be held out: 6 are asked for"),
}


@pytest.mark.parametrize(("prepare", "arguments", "code", "text"), BAD.values(), ids=BAD)
def test_one_line(
    prepare: Callable[[Path], None],
    arguments: list[str],
    code: int,
    text: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(folder)
    assert main(arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("flashrib: error: ")
    assert text in lines[0]
    assert not list(folder.glob("out*"))
