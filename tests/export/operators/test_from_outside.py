"""docs/howto/add-an-operator.md is true: an operator and a network that use nothing but rows of tables are exported, run and verified."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from flashrib.export.engine.source import read_source
from flashrib.export.operators.bodies import operator_nodes
from flashrib.export.operators.table import OPERATORS
from flashrib.model import build_model
from flashrib.model.architectures.registry import ARCHITECTURES, register
from flashrib.model.checkpoint import save_safetensors
from flashrib.runtime.cli import main
from flashrib.runtime.sessions.table import open_session
from tests.export.operators.toy import NEIGHBOURS
from tests.export.operators.toy_network import ARCHITECTURE
from tests.places import ROOT
from tests.runtime.picture_files import noise


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Path]:
    OPERATORS[NEIGHBOURS.op_type] = NEIGHBOURS
    register(ARCHITECTURE)
    torch.manual_seed(0)
    save_safetensors(tmp_path / "toy.safetensors", build_model("toy"))
    yield tmp_path / "toy.safetensors"
    del OPERATORS[NEIGHBOURS.op_type]
    del ARCHITECTURES["toy"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_exported_and_run(precision: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = checkpoint.with_suffix(".onnx")
    assert main(["export", str(checkpoint), "-o", str(file), "--precision", precision]) == 0
    model = onnx.load(file)
    assert [node.overload for node in operator_nodes(model)] == ["reach1", "reach3"]
    assert {function.name for function in model.functions} == {"Neighbours"}
    capsys.readouterr()
    assert main(["info", str(file), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["architecture"], about["attention"]) == ("toy", "dense" if precision == "bf16" else "standard")
    if precision == "bf16":  # for engines
        return
    picture = noise(9, 14, 3)
    Image.fromarray(picture).save(file.with_suffix(".png"))
    assert (
        main(["upscale", str(file.with_suffix(".png")), "-o", str(file.with_name("o.png")), "--model", str(file)]) == 0
    )
    with Image.open(file.with_name("o.png")) as large:
        assert large.size == (28, 18)
    batch = picture.transpose(2, 0, 1)[None].astype(np.float32) / 255
    with open_session(file) as ours, open_session(checkpoint) as reference:
        error = np.abs(ours.run(batch) - reference.run(batch)).max()
    assert error < (1e-5 if precision == "fp32" else 5e-3)


def test_verified(checkpoint: Path) -> None:
    file = checkpoint.with_suffix(".onnx")
    assert main(["export", str(checkpoint), "-o", str(file)]) == 0
    assert main(["verify", str(checkpoint), str(file)]) == 0


def test_what_an_engine_would_be_checked_for(checkpoint: Path) -> None:
    file = checkpoint.with_suffix(".onnx")
    assert main(["export", str(checkpoint), "-o", str(file), "--precision", "fp16"]) == 0
    source = read_source(file)
    assert [(layer.what, layer.tokens) for layer in source.layers] == [("reach 1", 16), ("reach 3", 16)]
    assert (source.dim, source.static, source.shapes((8, 10))) == (16, None, {"input": (1, 3, 8, 10)})


def test_a_body_that_the_operator_has_not(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint), "-o", "x.onnx", "--attention", "onnxruntime"]) == 2
    assert (
        "flashrib::Neighbours has no body 'onnxruntime': choose one of standard, dense, none" in capsys.readouterr().err
    )


def test_the_page_shows_this_row() -> None:
    """The example of the page is the file that is tested here."""
    page = (ROOT / "docs" / "howto" / "add-an-operator.md").read_text()
    assert "tests/export/operators/toy.py" in page
    row = (ROOT / "tests" / "export" / "operators" / "toy.py").read_text().partition("NEIGHBOURS = ")[2]
    assert f"NEIGHBOURS = {row}".strip() in page
