import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from flashrib.calibration import quantize as module
from flashrib.calibration.options import CalibrationOptions
from flashrib.calibration.quantize import calibrate
from flashrib.calibration.report import Report
from flashrib.calibration.sensitivity import Cost
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.quality.parity import verify
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.calibration.cases import SIDE, write_model, write_pictures

OPTIONS = CalibrationOptions("int8", budget=1.0, tiles=4, held_out=3, side=SIDE, threads=1)


def made(folder: Path, name: str = "out.onnx", **changed: object) -> Report:
    source = folder / "model.onnx"
    if not source.exists():
        write_model(source)
        write_pictures(folder / "pictures")
    return calibrate(source, folder / "pictures", folder / name, dataclasses.replace(OPTIONS, **changed))


@pytest.mark.parametrize("mode", ["int8", "fp8"])
def test_the_file(mode: str, tmp_path: Path) -> None:
    report = made(tmp_path, mode=mode)
    about = describe_onnx(tmp_path / "out.onnx")
    assert (about.precision, about.architecture, about.scale) == (mode, "sst-custom", 2)
    assert about.calibration is not None
    assert about.calibration == json.loads(json.dumps(report.summary()))
    assert about.calibration["layers"] == sorted(layer.name for layer in report.choice.layers)
    assert about.calibration["rest"] == "fp32"
    assert 0 < report.choice.point.quality.loss <= 1.0
    session = OnnxRuntimeSession(tmp_path / "out.onnx", threads=1)
    assert session.run(np.zeros((1, 3, 31, 40), np.float32)).shape == (1, 3, 62, 80)
    session.close()
    parity = verify(tmp_path / "model.onnx", [tmp_path / "out.onnx"], side=32)
    assert parity.artifacts[0].precision == mode
    assert all(comparison.finite for comparison in parity.artifacts[0].comparisons)


def test_what_lies_beside_it(tmp_path: Path) -> None:
    report = made(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["model.onnx", "out.onnx", "out.onnx.json", "out.onnx.png", "pictures"]
    document = json.loads((tmp_path / "out.onnx.json").read_text())
    assert document == json.loads(json.dumps(report.document()))
    assert [row["share_of_macs"] for row in document["products"]] == pytest.approx(
        [report.macs[layer.name] / sum(report.macs.values()) for layer in report.layers]
    )
    assert sum(row["share_of_macs"] for row in document["products"] if row["quantized"]) == pytest.approx(
        document["share_of_macs"], abs=1e-5
    )
    with Image.open(tmp_path / "out.onnx.png") as image:
        assert image.format == "PNG"


def test_the_same_again_is_the_same_file(tmp_path: Path) -> None:
    made(tmp_path, "one.onnx")
    made(tmp_path, "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    made(tmp_path, "three.onnx", seed=1)
    assert (tmp_path / "three.onnx").read_bytes() != (tmp_path / "one.onnx").read_bytes()


def test_an_interrupted_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "whole.onnx")
    add, measured = module.State.add, []

    def interrupt(state: module.State, name: str, cost: Cost) -> None:
        add(state, name, cost)
        measured.append(name)
        if len(measured) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.State, "add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path)
    assert (tmp_path / ".out.onnx.calibrating").exists()
    assert not (tmp_path / "out.onnx").exists()
    with (tmp_path / ".out.onnx.calibrating").open("a") as file:
        file.write('{"layer": "blo')  # what was being written when the machine went down
    made(tmp_path)
    assert len(measured) == 11
    assert len(set(measured)) == 11
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert not (tmp_path / ".out.onnx.calibrating").exists()


def test_a_state_of_other_options_is_not_taken(tmp_path: Path) -> None:
    made(tmp_path, "whole.onnx", method="mse")
    lines = [json.dumps({"key": "another"}), json.dumps({"layer": "blocks.0.conv", "drop": 0, "error": 0})]
    (tmp_path / ".out.onnx.calibrating").write_text("\n".join(lines) + "\n")
    made(tmp_path, method="mse")
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_a_small_budget_takes_fewer_layers(tmp_path: Path) -> None:
    everything = made(tmp_path)
    budget = everything.choice.point.quality.loss / 2
    report = made(tmp_path, "less.onnx", budget=budget)
    assert 0 < report.choice.chosen < everything.choice.chosen
    assert report.choice.point.quality.loss <= budget
    model = onnx.load(tmp_path / "less.onnx")
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8 and len(t.dims) in (2, 4)]
    assert len(weights) == report.choice.chosen


def test_progress_only_grows(tmp_path: Path) -> None:
    made(tmp_path)
    seen: list[tuple[float, str]] = []
    calibrate(
        tmp_path / "model.onnx", tmp_path / "pictures", tmp_path / "b.onnx", OPTIONS, lambda *args: seen.append(args)
    )
    parts = [part for part, _ in seen]
    assert parts == sorted(parts)
    assert 0 < parts[0] < parts[-1] <= 1
    assert list(dict.fromkeys(phase for _, phase in seen)) == ["ranges", "layers", "choice"]
