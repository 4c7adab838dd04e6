"""The library launches what PyTorch launches: same kernels, constants, integers and grids, for whole networks."""

import dataclasses
from typing import Any

import onnx
import pytest
import torch

from flashrib.export.onnxruntime.graph import LibraryOperator, with_library
from flashrib.export.onnxruntime.sizes import Size
from flashrib.export.onnxruntime.trace import traced_with_passes
from flashrib.model.attention.window import launch as window_launch
from flashrib.model.attention.window import op
from flashrib.model.config import NetworkConfig, UpsamplerConfig
from flashrib.model.gpu import device, gpu_network, layers, pointwise, spatial
from tests.export.onnxruntime.recorder import Launched, Recorder, launched_by_library
from tests.model.architectures.sst_real.test_recognise import SMALL as SMALL_REAL
from tests.model.networks import SMALL, SMALL_ESC, small_network

SIZE = (29, 33)
BLOCKS = ("BM", "BN", "STAGES")  # of attention: the grid tells them
WIDE = dataclasses.replace(SMALL, dim=72, ffn_dim=100, upsampler=UpsamplerConfig("pixelshuffle", 3, 16))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Launched]:
    """Kernels that PyTorch launches; none is run."""
    seen: list[Launched] = []

    def recorder(kernel: Any) -> Recorder:
        return Recorder(kernel, seen)

    for module in (pointwise, spatial, op):
        monkeypatch.setattr(module, "wrap_triton", recorder)
    monkeypatch.setattr(op, "configured", lambda kernel, blocks: kernel)
    monkeypatch.setattr(device, "takes_kernels", lambda x: True)
    monkeypatch.setattr(window_launch, "capability", lambda device: 90)
    monkeypatch.setattr(layers.WindowAttention, "form", "triton")
    return seen


@pytest.mark.parametrize(
    "config", [SMALL, SMALL_ESC, pytest.param(WIDE, marks=pytest.mark.slow)], ids=["sst", "esc", "wide"]
)
def test_launches_are_those_of_pytorch(
    config: NetworkConfig, launched: list[Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small_network(config)
    with torch.no_grad():
        gpu_network(network, torch.float16)(torch.zeros(1, 3, *SIZE))
    assert len(launched) > 10
    monkeypatch.setattr(layers.WindowAttention, "form", None)
    model = traced_with_passes(network, "fp16", None, "")
    _, operators = with_library(model, [90])
    height, width = SIZE
    if config is SMALL_ESC:  # completed to whole windows before anything else
        height, width = (-(-side // step) * step for side, step in zip(SIZE, config.windows[0], strict=True))
    assert _launches(model, operators, (height, width)) == list(map(_without_blocks, launched))


@pytest.mark.parametrize("config", [SMALL, SMALL_ESC, SMALL_REAL], ids=["sst", "esc", "sst-real"])
def test_inputs_and_outputs_are_float32(config: NetworkConfig) -> None:
    graph = traced_with_passes(small_network(config), "fp16", (32, 32), "").graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.input, *graph.output]}
    assert set(types) - {"noise"} == {"input", "output"}
    assert set(types.values()) == {onnx.TensorProto.FLOAT}


def _launches(model: onnx.ModelProto, operators: list[LibraryOperator], size: tuple[int, int]) -> list[Launched]:
    """What the library launches for a map of this size, in the order of the nodes."""
    changed, _ = with_library(model, [90])
    by_name = {operator.name: operator for operator in operators}
    known: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in model.graph.initializer}
    found = []
    for node in changed.graph.node:
        if node.op_type not in by_name:
            continue
        operator = by_name[node.op_type]
        (launch,) = operator.kernel.launches(operator.node, 90)
        tensors = zip(node.input, operator.node.inputs.items(), strict=True)
        shapes = []
        for name, (argument, tensor) in tensors:
            made_by_others = (
                (1, 3, *size) if argument == "picture" and name not in known else (1, *size, tensor.shape[-1])
            )
            shapes.append(known.get(name, made_by_others))
        for name, output in zip(node.output, launch.outputs, strict=True):
            known[name] = tuple(Size.of(side).evaluate(shapes) for side in output.shape)
        found.append(_without_blocks(launched_by_library(launch, shapes)))
    return found


def _without_blocks(launched: Launched) -> Launched:
    name, values, grid = launched
    return name, {key: value for key, value in values.items() if key not in BLOCKS}, grid
