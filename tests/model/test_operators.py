"""Operators are called directly where nobody looks, and by way of PyTorch where somebody compiles, exports or differentiates."""

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("triton")
from flashrib.model.operators import triton_op

CALLS: list[str] = []


@triton_op("flashrib_test::doubled")
def doubled(x: Tensor) -> Tensor:
    if not torch.compiler.is_compiling():
        CALLS.append(type(x).__name__)
    return x * 2


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return doubled(x) + 1


def test_plain_calls_go_to_the_function() -> None:
    x = torch.arange(3.0)
    with torch.inference_mode():
        assert torch.equal(doubled(x), x * 2)
    assert doubled._opoverload is torch.ops.flashrib_test.doubled.default


def test_a_kernel_for_a_device_is_taken_there() -> None:
    @triton_op("flashrib_test::tripled")
    def tripled(x: Tensor) -> Tensor:
        return x * 4

    tripled.register_kernel("cpu")(lambda x: x * 3)
    with torch.inference_mode():
        assert torch.equal(tripled(torch.ones(2)), torch.full((2,), 3.0))


def test_an_exported_graph_has_the_operator() -> None:
    with torch.no_grad():
        graph = torch.export.export(Doubled(), (torch.ones(3),)).graph
    assert torch.ops.flashrib_test.doubled.default in {node.target for node in graph.nodes}


def test_a_mode_sees_the_operator() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Seeing(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Seeing():
        doubled(torch.ones(3))
    assert torch.ops.flashrib_test.doubled.default in seen


def test_the_compiler_sees_through() -> None:
    with torch.no_grad():
        result = torch.compile(Doubled(), backend="aot_eager", fullgraph=True)(torch.ones(3))
    assert torch.equal(result, torch.full((3,), 3.0))
