"""The forms of layers for CUDA GPUs on the CPU, through Triton's interpreter; `test_cuda_layers.py` runs this file."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from triton.runtime import interpreter

from flashrib.model import cuda_layers
from flashrib.model.architectures.sst_real.network import GatedFFN
from flashrib.model.config import AttentionConfig
from flashrib.model.depthwise import depthwise3x3
from flashrib.model.layers import ConvFFN, WindowAttention
from tests.model.interpreter import language_patched_once
from tests.official import seeded

__all__ = ["language_patched_once"]  # a fixture that every test here takes


@pytest.fixture(autouse=True)
def bounds_of_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.6's interpreter makes integers of arrays with one value in a way that NumPy 2.4 no longer takes."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


def compare(found: Tensor, wanted: Tensor, inputs: list[Tensor]) -> None:
    weights = torch.randn(wanted.shape, generator=seeded(3))
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    ours, theirs = (torch.autograd.grad((y * weights).sum(), inputs, allow_unused=True) for y in (found, wanted))
    for a, b in zip(ours, theirs, strict=True):
        assert a is not None
        assert b is not None
        assert (a - b).abs().max() <= 1e-4 * b.abs().max() + 1e-6


@pytest.mark.parametrize("gate", ["DWC", "Linear", None])
def test_attention(gate: Any) -> None:
    """Heads of 10 channels become 16, rank 18 becomes the hidden layer itself; also of a map that is no multiple of the window."""
    torch.manual_seed(0)
    layer = WindowAttention(AttentionConfig(20, (4, 4), 2, 18, gate=gate))
    x = torch.randn(1, 20, 6, 4, requires_grad=True)
    wanted = layer.plain(x)
    compare(cuda_layers.attention(layer, x), wanted, [x, *layer.parameters()])


def test_ffn() -> None:
    torch.manual_seed(0)
    layer = ConvFFN(12, 13, "agg")
    x = torch.randn(2, 12, 3, 5, requires_grad=True)
    compare(cuda_layers.ffn(layer, x), layer.plain(x), [x, *layer.parameters()])


def test_gated_ffn() -> None:
    torch.manual_seed(0)
    layer = GatedFFN(12, 9, 0.0)
    x = torch.randn(2, 12, 3, 5, requires_grad=True)
    compare(cuda_layers.gated_ffn(layer.w12, layer.w3, layer.dropout, x), layer(x), [x, *layer.parameters()])


@pytest.mark.parametrize("shape", [(2, 5, 7, 37), (1, 1, 1, 3), (1, 20, 17, 8)])
def test_depthwise(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(shape[-1], shape[-1], 3, padding=1, groups=shape[-1])
    x = torch.randn(shape, requires_grad=True)
    assert conv.bias is not None
    wanted = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    compare(depthwise3x3(x, conv.weight, conv.bias), wanted, [x, *conv.parameters()])


@pytest.mark.parametrize("channels", [12, 13])
def test_16_bit_maps_are_completed(channels: int) -> None:
    """Widths that a GPU reads badly: the same result as in float32, to the rounding of bfloat16, and gradients of the real channels."""
    torch.manual_seed(0)
    layer = ConvFFN(channels, 9, "agg")
    x = torch.randn(1, channels, 3, 4)
    half = layer.to(torch.bfloat16)
    found = cuda_layers.ffn(half, x.bfloat16())
    wanted = half.plain(x.bfloat16())
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 0.02 * wanted.abs().max()
    found.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in half.parameters())
