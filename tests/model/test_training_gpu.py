"""The forms of layers that train fast, on a GPU: gradients against float64, also compiled and as a CUDA graph."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model import SSTConfig
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.layers import ConvFFN, WindowAttention
from flashrib.model.training.steps import GraphedStep, compile_layers

pytestmark = pytest.mark.gpu
CONFIG = SSTConfig("sst-custom", 60, ((8, 8), (16, 16)), (2, 2), (18, 34), 1, 75)


def gradients(network: nn.Module, low: Tensor, high: Tensor) -> list[Tensor]:
    network.zero_grad(set_to_none=True)
    F.l1_loss(network(low).float(), high.float()).backward()
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def errors(found: list[Tensor], exact: list[Tensor]) -> list[float]:
    return [float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(found, exact, strict=True)]


@pytest.fixture
def case() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = network_from_config(CONFIG).cuda().train()
    network.to(memory_format=torch.channels_last)
    return network, torch.rand(2, 3, 24, 32, device="cuda"), torch.rand(2, 3, 48, 64, device="cuda")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, when its compiler is loaded
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler of PyTorch 2.11 looks at it itself
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # the compiler's advice
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_gradients_in_bfloat16(case: tuple[nn.Module, Tensor, Tensor], compiled: bool) -> None:
    """At most twice as far from float64 as the plain layers under the same autocast."""
    network, low, high = case
    exact = gradients(copy.deepcopy(network).double(), low.double(), high.double())
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if isinstance(module, WindowAttention | ConvFFN):
            module.plainly = True
    if compiled:
        compile_layers(network)
    with torch.autocast("cuda", torch.bfloat16):
        ours, theirs = gradients(network, low, high), gradients(plain, low, high)
    mine, other = errors(ours, exact), errors(theirs, exact)
    assert max(mine) <= 2 * max(other)
    assert sum(mine) <= 2 * sum(other)


def test_graphed_step(case: tuple[nn.Module, Tensor, Tensor]) -> None:
    network, low, high = case
    wanted = gradients(network, low, high)
    step = GraphedStep(network, lambda x, y: F.l1_loss(network(x).float(), y), (torch.rand_like(low), high))
    loss = step(low, high)
    found = [p.grad for p in network.parameters() if p.grad is not None]
    assert torch.isfinite(loss)
    assert max(errors(found, wanted)) <= 1e-3
