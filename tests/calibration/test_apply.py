"""What stands around the Q/DQ pairs changes nothing but their roundings."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from flashrib.calibration import apply, plan
from flashrib.calibration.apply import with_layers
from flashrib.calibration.formats import FORMATS
from flashrib.calibration.graph import run, runner
from flashrib.calibration.placement import placement_faults
from flashrib.calibration.plan import plain_plans
from flashrib.calibration.statistics import Runs, feed
from flashrib.model.config import NetworkConfig
from tests.calibration.cases import candidates, plans, small_model, tiles
from tests.model.networks import SMALL, SMALL_ESC

BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_ESC], ids=["sst", "esc"])
MODES = pytest.mark.parametrize("mode", ["int8", "fp8"])


def output(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = run(runner(model, 1), {"input": x})["output"].astype(np.float32)
    return result


@BOTH
@MODES
def test_recentring_is_exact(config: NetworkConfig, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without roundings the network computes what it did, at its borders too, though activations and weights are others."""
    monkeypatch.setattr(plan, "round_weight", lambda weight, gram, scale, kind: np.asarray(weight))
    monkeypatch.setattr(apply, "insert_pairs", lambda model, layers, kind: model)
    model, drawn = small_model(config), tiles(tmp_path / "p")
    made = with_layers(model, list(plans(model, drawn, mode).values()), FORMATS[mode])
    onnx.checker.check_model(made)
    x = feed(drawn.held_out[0])
    expected = output(model, x)
    assert np.abs(output(made, x) - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())
    assert any("_q" in tensor.name for tensor in made.graph.initializer)


@BOTH
@MODES
def test_quantized_networks(config: NetworkConfig, mode: str, tmp_path: Path) -> None:
    """Valid, placed by the rules, near the original, and nearer than without all that."""
    model, drawn = small_model(config), tiles(tmp_path / "p")
    kind, layers = FORMATS[mode], candidates(model)
    ours = with_layers(model, list(plans(model, drawn, mode).values()), kind)
    plain = with_layers(model, list(plain_plans(Runs(model, drawn.calibration, 1), layers, mode).values()), kind)
    onnx.checker.check_model(ours, full_check=False)
    assert placement_faults(ours) == []
    errors = []
    for made in (ours, plain):
        differences = [output(made, feed(tile)) - output(model, feed(tile)) for tile in drawn.held_out]
        errors.append(float(np.mean(np.square(differences))))
    level = float(np.mean(np.square(output(model, feed(drawn.held_out[0])))))
    assert 0 < errors[0] < 2e-3 * level
    assert errors[0] < errors[1]


@MODES
def test_weights_are_stored_in_8_bits(mode: str, tmp_path: Path) -> None:
    model = small_model()
    made = with_layers(model, list(plans(model, tiles(tmp_path / "p"), mode).values()), FORMATS[mode])
    types = Counter(tensor.data_type for tensor in made.graph.initializer if len(tensor.dims) in (2, 4))
    assert types[FORMATS[mode] and {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}[mode]] == 11
    names = {tensor.name for tensor in made.graph.initializer}
    used = {name for node in made.graph.node for name in node.input}
    assert names <= used  # the original weights are gone


def test_the_stored_weight_is_the_planned_one(tmp_path: Path) -> None:
    model = small_model()
    made_plans = plans(model, tiles(tmp_path / "p"), "int8")
    made = with_layers(model, list(made_plans.values()), FORMATS["int8"])
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    for name, one in made_plans.items():
        grid = stored[f"{name}.weight_q_quantized"].astype(np.float64)
        scale = stored[f"{name}.weight_q_scale"].astype(np.float64)
        shape = [-1 if axis == one.layer.axis else 1 for axis in range(grid.ndim)]
        assert grid * scale.reshape(shape) == pytest.approx(one.weight, rel=1e-6)


def test_no_layers_no_change() -> None:
    assert with_layers(small_model(), [], FORMATS["int8"]) == small_model()


def test_in_fp16_the_scales_are_fp16(tmp_path: Path) -> None:
    model = small_model(SMALL, "fp16")
    made = with_layers(model, list(plans(model, tiles(tmp_path / "p"), "fp8").values()), FORMATS["fp8"])
    onnx.checker.check_model(made, full_check=False)
    types = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    scales = [types[node.input[1]] for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert scales
    assert set(scales) == {onnx.TensorProto.FLOAT16}
    x = feed(tiles(tmp_path / "p").held_out[0])
    difference, level = output(made, x) - output(model, x), output(model, x)
    assert 0 < np.mean(np.square(difference)) < 2e-3 * np.mean(np.square(level))
