"""docs/howto/add-an-architecture.md is true: its example, added from outside, is loaded, exported, run, verified, quantized."""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import pytest
import torch

from flashrib.calibration.layers import find_layers
from flashrib.model import build_model, load_model, preset, register, save_safetensors
from flashrib.model.architectures.registry import ARCHITECTURES, architecture_named
from flashrib.model.gpu import gpu_network
from flashrib.runtime.cli import main
from flashrib.runtime.errors import CheckpointError, ModelError, UsageError
from flashrib.runtime.sessions.table import open_session

PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "add-an-architecture.md"


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example of the page, and a checkpoint of its kind."""
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with mock.patch.dict(ARCHITECTURES):
        exec(compile(example, str(PAGE), "exec"), {"__name__": "toy"})
        torch.manual_seed(0)
        save_safetensors("toy.safetensors", build_model("toy-x2"))
        yield


def test_it_is_loaded_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    network = load_model("toy.safetensors")
    assert network.config == preset("toy-x2", 2)
    assert main(["info", "toy.safetensors", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["family"], about["architecture"], about["scale"], about["width"]) == ("toy", "toy-x2", 2, 16)


def test_it_is_exported_run_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "toy.safetensors", "-o", "toy.onnx"]) == 0
    batch = np.random.default_rng(0).random((2, 3, 9, 14), dtype=np.float32)
    with open_session("toy.onnx") as ours, open_session("toy.safetensors") as reference:
        assert (ours.info.architecture, ours.info.scale, ours.info.minimum) == ("toy-x2", 2, 1)
        found, wanted = ours.run(batch), reference.run(batch)
    assert found.shape == (2, 3, 18, 28)
    assert np.abs(found - wanted).max() <= 1e-5
    assert main(["verify", "toy.safetensors", "toy.onnx"]) == 0


def test_calibration_keeps_what_it_names() -> None:
    assert main(["export", "toy.safetensors", "-o", "toy.onnx"]) == 0
    with pytest.raises(ModelError, match="no convolution or matmul that may be quantized"):
        find_layers(onnx.load("toy.onnx"))
    ARCHITECTURES["toy"] = dataclasses.replace(ARCHITECTURES["toy"], kept={})
    assert [layer.kept for layer in find_layers(onnx.load("toy.onnx"))] == ["first convolution", ""]


def test_a_checkpoint_with_a_wrong_key_is_refused() -> None:
    network = build_model("toy-x2")
    state = network.state_dict()
    torch.save(state | {"up.bias": torch.zeros(13)}, "wrong.pth")
    with pytest.raises(CheckpointError, match=r"of a toy network: 1 misshapen: 'up.bias' \(13,\) instead of \(12,\)"):
        load_model("wrong.pth")


def test_without_a_form_for_gpus_there_is_one_line() -> None:
    with pytest.raises(UsageError, match="toy-x2 has no form for GPUs of its own"):
        gpu_network(build_model("toy-x2"))


def test_a_name_is_taken_once() -> None:
    with pytest.raises(UsageError, match="'toy' is registered already"):
        register(ARCHITECTURES["toy"])
    with pytest.raises(UsageError, match="unknown architecture 'toy-x9'"):
        architecture_named("toy-x9")
