from pathlib import Path

import pytest
from onnx import ModelProto

from flashrib.calibration.apply import with_layers
from flashrib.calibration.formats import FORMATS
from flashrib.calibration.layers import find_layers
from flashrib.calibration.plan import plain_plans
from flashrib.calibration.quantize import count_work
from flashrib.calibration.statistics import Runs
from flashrib.model.config import NetworkConfig
from flashrib.runtime.errors import ModelError
from tests.calibration.cases import SIDE, candidates, small_model, tiles
from tests.model.networks import SMALL, SMALL_ESC

KEPT_SST = {
    "first": "first convolution",
    "last": "last convolution",
    "upsampler.up_conv": "upsampler",
    "blocks.0.attentions.0.gate_dwc": "depthwise",
    "blocks.0.ffns.1.dwc": "depthwise",
}


def test_the_rules_for_sst() -> None:
    layers = {layer.name: layer for layer in find_layers(small_model())}
    assert {name: layers[name].kept for name in KEPT_SST} == KEPT_SST
    free = [name for name, layer in layers.items() if not layer.kept]
    expected = [f"blocks.0.attentions.{i}.{part}" for i in (0, 1) for part in ("qkv", "gate", "out")]
    expected += [f"blocks.0.ffns.{i}.{part}" for i in (0, 1) for part in ("proj", "last")]
    assert sorted(free) == sorted([*expected, "blocks.0.conv"])


def test_the_rules_for_esc() -> None:
    layers = find_layers(small_model(SMALL_ESC))
    reasons = [layer.kept for layer in layers]
    assert reasons.count("on a mean over the picture") == 2  # squeeze and expand
    assert reasons.count("no constant factor") == 1  # the dynamic convolution
    large = [layer for layer in layers if layer.op == "Conv" and layer.depth == 4 * 5 * 5]
    assert [layer.kept for layer in large] == [""]


@pytest.mark.parametrize(("config", "name"), [(SMALL, "sst"), (SMALL_ESC, "esc")], ids=["sst", "esc"])
def test_names_are_unique(config: NetworkConfig, name: str) -> None:
    names = [layer.name for layer in find_layers(small_model(config))]
    assert len(set(names)) == len(names)


def test_work(tmp_path: Path) -> None:
    """MACs of a tile of 24x24, from the sizes of the layers."""
    model = small_model()
    macs = count_work(model, find_layers(model), tiles(tmp_path / "p"), 1)
    pixels = SIDE * SIDE
    assert macs["first"] == pixels * 27 * 12
    assert macs["blocks.0.attentions.0.qkv"] == pixels * 12 * 36
    assert macs["blocks.0.ffns.0.proj"] == pixels * 12 * 18
    assert macs["blocks.0.ffns.0.dwc"] == pixels * 9 * 18
    assert macs["blocks.0.conv"] == pixels * 9 * 12 * 12
    assert macs["upsampler.up_conv"] == pixels * 9 * 12 * 12


def test_a_dynamic_factor_has_work_too(tmp_path: Path) -> None:
    model = small_model(SMALL_ESC)
    layers = find_layers(model)
    macs = count_work(model, layers, tiles(tmp_path / "p"), 1)
    dynamic = next(layer for layer in layers if layer.kept == "no constant factor")
    assert macs[dynamic.name] == SIDE * SIDE * 4 * 9


def test_quantized_already(tmp_path: Path) -> None:
    model = small_model()
    layers = candidates(model)[:1]
    plans = plain_plans(Runs(model, tiles(tmp_path / "p").calibration, 1), layers, "int8")
    with pytest.raises(ModelError, match="quantized already"):
        find_layers(with_layers(model, list(plans.values()), FORMATS["int8"]))


def test_nothing_to_quantize() -> None:
    model = ModelProto()
    model.CopyFrom(small_model())
    nodes = [
        node for node in model.graph.node if node.op_type != "MatMul" and "blocks.0.conv" not in "".join(node.input)
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with pytest.raises(ModelError, match="no convolution or matmul that may be quantized"):
        find_layers(model)
