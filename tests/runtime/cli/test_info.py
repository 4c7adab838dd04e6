"""`flashrib info`."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

from flashrib.model import build_model
from flashrib.runtime.cli import main
from flashrib.runtime.sessions.table import SESSIONS
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.sessions.engines import write_engine
from tests.runtime.sessions.test_onnxruntime import METADATA

# What the two kinds of files have in common.
COMMON = {
    "file",
    "format",
    "architecture",
    "scale",
    "windows",
    "ranks",
    "heads",
    "parameters",
    "alignment",
    "minimum",
    "whole_picture",
    "precision",
    "sha256",
}


def about(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["info", str(path), "--json", *arguments]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    assert document.keys() >= COMMON
    assert document["file"] == str(path)
    assert document["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    return document


def test_onnx_without_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "safetensors", "onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    document = about(write_onnx(tmp_path / "m.onnx"), capsys, "--arch", "sst-light")
    wanted = json.loads(json.dumps(METADATA.to_json()))
    assert {key: document[key] for key in wanted} == wanted
    assert document["format"] == "onnx"


def test_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = write_checkpoint(tmp_path / "m.safetensors")
    document = about(tmp_path / "m.safetensors", capsys)
    wanted = {
        "format": "checkpoint",
        "architecture": "sst-custom",
        "scale": 2,
        "windows": [[4, 4], [8, 6]],
        "ranks": [3, 5],
        "heads": [3, 2],
        "parameters": sum(p.numel() for p in network.parameters()),
        "alignment": 24,
        "minimum": 5,
        "precision": "fp32",
    }
    assert {key: document[key] for key in wanted} == wanted


def test_a_checkpoint_that_needs_a_hint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "which.pth"
    torch.save({key: value.half() for key, value in build_model("sst-light").state_dict().items()}, path)
    document = about(path, capsys)
    assert (document["architecture"], document["windows"], document["precision"]) == (None, None, "fp16")
    assert document["candidates"] == ["sst-light", "sst-light-plus"]
    assert about(path, capsys, "--arch", "sst-light-plus")["alignment"] == 96

    assert main(["info", str(path)]) == 0
    table = capsys.readouterr().out
    assert "architecture   unknown: pass --arch\n" in table
    assert "candidates     sst-light, sst-light-plus\n" in table


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    monkeypatch.setitem(
        SESSIONS, "onnxruntime", dataclasses.replace(SESSIONS["onnxruntime"], bundled=lambda name: path)
    )
    assert main(["info"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[:10] == [
        f"file           {path}",
        "format         onnx",
        "architecture   sst-light",
        "scale          x2",
        "alignment      64",
        "minimum        33",
        "windows        8x8, 16x16 (rows x columns)",
        "ranks          8, 16",
        "heads          3, 3",
        "parameters     857,341",
    ]


def test_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_engine(tmp_path / "a.engine")
    assert main(["info", str(path), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["format"], about["flavour"], about["sizes"]) == ("engine", "rtx", "64x64 to 128x128")
    assert (about["architecture"], about["scale"]) == ("sst-light", 2)
    path.write_bytes(path.read_bytes() + b"x")
    assert main(["info", str(path)]) == 1
    assert "is not the engine that its manifest describes" in capsys.readouterr().err


def test_multiply_adds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--macs", "64", "--json"]) == 0
    macs = json.loads(capsys.readouterr().out)["macs"]
    assert macs["size"] == "64x64"
    assert macs["total"] == macs["convolutions"] + macs["attention"]
    write_checkpoint(tmp_path / "own.safetensors")
    assert main(["info", str(tmp_path / "own.safetensors"), "--macs", "9x13"]) == 0
    assert "9x13: total 0.0 G, convolutions 0.0 G, attention 0.0 G" in capsys.readouterr().out
    metadata = dataclasses.replace(METADATA, architecture="sst-custom").to_properties()
    write_onnx(tmp_path / "other.onnx", metadata=metadata)
    assert main(["info", str(tmp_path / "other.onnx"), "--macs", "9x13"]) == 2
    assert "'sst-custom' is no preset: pass the checkpoint that the file was made from" in capsys.readouterr().err
