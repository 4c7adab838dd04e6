"""Networks are traced once, which gives the graph that torch's two traces give; what needs both gets both."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

from flashrib.export import trace as tracing
from flashrib.export.trace import trace
from flashrib.model.fold import fold
from flashrib.model.gpu import gpu_network
from tests.model.every_network import EVERY
from tests.model.networks import SMALL


@pytest.fixture
def decompositions(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The programs that torch's exporter traced again."""
    done: list[Any] = []
    original = torch.export.ExportedProgram.run_decompositions

    def counted(program: torch.export.ExportedProgram, table: Any = None) -> torch.export.ExportedProgram:
        done.append(program)
        return original(program, table)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    yield done
    assert torch.export.ExportedProgram.run_decompositions is counted


@pytest.mark.parametrize("name", EVERY)
def test_networks_are_traced_once(name: str, decompositions: list[Any]) -> None:
    trace(fold(EVERY[name]()), opset=18)
    assert decompositions == []


def test_a_second_trace_would_give_the_same(decompositions: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = fold(EVERY["esc-rib"]())
    once = trace(deployed, opset=18)
    monkeypatch.setattr(tracing, "_traced_once", nullcontext)
    twice = trace(deployed, opset=18)
    assert len(decompositions) == 1
    assert [node.op_type for node in once.graph.node] == [node.op_type for node in twice.graph.node]
    assert weights(once) == weights(twice)


def weights(model: ModelProto) -> list[tuple[tuple[int, ...], bytes]]:
    return sorted((tuple(tensor.dims), tensor.raw_data) for tensor in model.graph.initializer)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("sst", torch.float16), ("esc-rib", torch.float16), ("sst-real", torch.float16), ("sst-real", torch.float32)],
)
def test_fused_passes_are_traced_once(name: str, dtype: torch.dtype, decompositions: list[Any]) -> None:
    network = EVERY[name]()
    traced: Any = gpu_network(network, dtype)
    trace(traced, opset=20, tile=(32, 32), minimum=network.config.minimum)
    assert decompositions == []


class _Unusual(nn.Module):
    """The kinds of arithmetic that need the second trace."""

    config = SMALL

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.in_place = in_place

    def forward(self, picture: Tensor) -> Tensor:
        y = picture.clone()
        if self.in_place:
            view = y[:, :1]
            view.mul_(3.0)  # changes y
        return (1 - y).square()  # neither has an operator in ONNX


@pytest.mark.parametrize("in_place", [False, True])
def test_what_needs_a_second_trace_gets_it(in_place: bool, decompositions: list[Any]) -> None:
    module: Any = _Unusual(in_place)
    model = trace(module, opset=18)
    assert len(decompositions) == 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = torch.rand(1, 3, 8, 12)
    (result,) = session.run(None, {session.get_inputs()[0].name: picture.numpy()})
    np.testing.assert_allclose(result, module(picture).numpy(), atol=1e-6)
