"""The kernels of the GPU network on the CPU, through Triton's interpreter; `test_interpreted.py` runs this file, see there.

Errors are ratios of the RMS of the definition in float64 on the same (rounded) inputs, and at most twice those of the definition in the
same dtype, plus a rounding floor; in float32 plus 4e-6, the error of the polynomial in gelu.
"""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from flashrib.model.architectures.esc import gpu as esc
from flashrib.model.architectures.esc.network import geometric_ensemble
from flashrib.model.config import UpsamplerConfig
from flashrib.model.gpu import chain as chain_module
from flashrib.model.gpu import gpu_network, head, layers, operators, reference
from flashrib.model.gpu.chain import Chain, up
from tests.model.networks import SMALL, SMALL_ESC, small_network
from tests.official import seeded

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter

DTYPES = [torch.float32, torch.float16]  # Triton 3.6's interpreter multiplies the bit patterns of bfloat16
GELU_ERROR = 4e-6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed + sum(shape)), dtype=torch.float64)


def fullmap(channels: int, dtype: torch.dtype, seed: int, size: tuple[int, int, int] = (2, 9, 21)) -> Tensor:
    """A map with zeros in the channels that only complete it."""
    x = torch.zeros(*size, up(channels), dtype=dtype)
    x[..., :channels] = random(*size, channels, seed=seed)
    return x


def check(found: Tensor, exact: Tensor, plain: Tensor, floor: float = 0.0) -> None:
    rms = exact.square().mean().sqrt()
    ours, theirs = (((x.double() - exact).square().mean().sqrt() / rms).item() for x in (found, plain))
    assert found.dtype == plain.dtype
    assert found.shape == plain.shape
    assert ours <= 2 * theirs + torch.finfo(found.dtype).eps + floor


@pytest.fixture(autouse=True)
def unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch 2.11 does not wrap kernels of the interpreter."""
    monkeypatch.setattr(operators, "wrap_triton", lambda kernel: kernel)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel does not write stays NaN."""

    def poisoned(self: Tensor, *size: int, **options: Any) -> Tensor:
        flat = size if size and isinstance(size[0], int) else tuple(size[0]) if size else ()
        return self.new_full(flat, float("nan") if self.is_floating_point() else -1, **options)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    monkeypatch.setattr(torch, "empty_like", lambda x, **_: torch.full_like(x, float("nan")))


# steps of a Chain, and whether it gets a residual
CHAINS: dict[str, tuple[set[str], bool]] = {
    "product-norm-product": ({"product", "norm", "following", "gelu", "keep_x"}, True),
    "norm-product": ({"bias", "norm", "following", "keep_x", "keep_n"}, True),
    "depthwise-product-norm-product": (
        {"taps", "ffn", "product", "norm", "following", "keep_x", "keep_n"},
        True,
    ),
    "depthwise-product-residual": ({"taps", "ffn", "product", "keep_x"}, True),
    "bias-residual": ({"bias", "keep_x"}, True),
    "norm": ({"bias", "norm", "keep_n"}, True),
    "product-product": ({"product", "following", "gelu", "keep_x"}, False),
    "product-norm": ({"product", "norm", "keep_n"}, False),
    "in-place": ({"product", "norm", "following", "gelu", "keep_x", "ahead"}, True),
    "in-place-alone": ({"taps", "ffn", "product", "keep_x", "ahead"}, True),
    "start": ({"bias", "norm", "following", "keep_x", "keep_n", "start"}, True),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("dim", "width", "out"), [(20, 24, 45), (90, 70, 130)])
@pytest.mark.parametrize("case", CHAINS)
def test_chain(case: str, dim: int, width: int, out: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, with_residual = CHAINS[case]
    if dim <= 64:  # one kernel, which adds biases itself
        steps = steps - {"ahead", "start"}
    values: dict[str, Any] = {
        "taps": (random(width, 1, 3, 3) / 3, random(width)),
        "product": (random(dim, width) * width**-0.5, random(dim)),
        "bias": random(dim),
        "norm": (random(dim, seed=1), random(dim, seed=2)),
        "following": (random(out, dim) * dim**-0.5, random(out)),
        "ahead": random(dim, seed=3),
        "start": random(dim, seed=4),
    }
    if "product" not in steps:
        width = dim
    options = {step: values.get(step, True) for step in steps}
    layer, exact_layer = (Chain(d, width, dim, **options) for d in (dtype, torch.float64))
    for name in ("weight", "next_weight", "linear_weight", "linear_bias", "sum_weight", "sum_bias"):
        value = getattr(layer, name)
        if value is not None:
            setattr(exact_layer, name, value.double())
    source = fullmap(width, dtype, 3)
    residual = fullmap(dim, dtype, 4) if with_residual else None
    maps = [source] if residual is None else [source, residual]
    exact = exact_layer([t.double() for t in maps])
    plain = layer([t.clone() for t in maps])  # the residual may be overwritten
    monkeypatch.setattr(chain_module, "operators", lambda _: operators)
    ours = layer([t.clone() for t in maps])
    for found, right, usual in zip(ours, exact, plain, strict=True):
        check(found, right, usual, GELU_ERROR if "gelu" in steps or "ffn" in steps else 0.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("width", "dim", "side"), [(16, 12, 4), (80, 64, 16), (136, 40, 20)])
def test_fork(width: int, dim: int, side: int, dtype: torch.dtype) -> None:
    source, residual = fullmap(width, dtype, 1), fullmap(dim, dtype, 2)
    weight, side_weight = torch.zeros(up(width, 64), 64, dtype=dtype), torch.zeros(up(width, 64), 64, dtype=dtype)
    bias, side_bias = torch.zeros(64), torch.zeros(64)
    weight[:width, :dim], side_weight[:width, :side] = random(width, dim) * 0.1, random(width, side) * 0.1
    bias[:dim], side_bias[:side] = random(dim), random(side)
    tensors = (source, residual, weight, bias, side_weight, side_bias)
    exact = reference.fork(*(t.double() for t in tensors), dim, side)
    plain = reference.fork(*tensors, dim, side)
    *found, sums = operators.fork(*tensors, dim, side)
    for ours, right, usual in zip(found, exact, plain, strict=False):
        check(ours, right, usual)
    assert sums.shape[1] > 1
    check(sums.sum(1, keepdim=True), exact[2], plain[2], 1e-6)


@pytest.mark.parametrize(("channels", "tiles"), [(4, 3), (16, 1500), (20, 7)])
def test_taps(channels: int, tiles: int) -> None:
    inner, padded = channels // 2, up(channels, 64)
    tensors = [random(2, tiles, channels), random(inner, channels), random(inner), random(9 * padded, inner)]
    tensors = [t.float() for t in (*tensors, random(9 * padded))]
    exact, plain = (reference.taps(*(t.to(d) for t in tensors), 9 * tiles) for d in (torch.float64, torch.float32))
    check(operators.taps(*tensors, 9 * tiles), exact, plain, 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [16, 40, 184])
@pytest.mark.parametrize("ffn", [False, True], ids=["plain", "ffn"])
def test_depthwise(ffn: bool, channels: int, dtype: torch.dtype) -> None:
    source, padded = fullmap(channels, dtype, 5), up(channels, 64)
    taps, bias = torch.zeros(9, padded), torch.zeros(padded)
    taps[:, :channels], bias[:channels] = random(9, channels), random(channels)
    exact = reference.depthwise(source.double(), taps.double(), bias.double(), ffn)
    plain = reference.depthwise(source, taps, bias, ffn)
    check(operators.depthwise(source, taps, bias, ffn), exact, plain, GELU_ERROR)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "side"), [(16, 13), (24, 5), (8, 3), (4, 5), (64, 3)])
def test_mix(channels: int, side: int, dtype: torch.dtype) -> None:
    kernel = geometric_ensemble(random(channels, channels, side, side)) * (channels * side**2) ** -0.5
    layer, taps = esc.Mixing(kernel, dtype), torch.zeros(2, 9, 64)
    taps[..., :channels] = random(2, 9, channels) / 3
    source = fullmap(channels, dtype, 8)
    exact = reference.mix(source.double(), layer.weight.double(), taps.double(), side, layer.pixels)
    plain = reference.mix(source, layer.weight, taps, side, layer.pixels)
    check(operators.mix(source, layer.weight, taps, side, layer.pixels), exact, plain)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shuffle(dtype: torch.dtype, scale: int) -> None:
    y, picture = fullmap(3 * scale**2, dtype, 7), torch.rand(2, 3, 9, 21, generator=seeded(8))
    bias = random(3 * scale**2).float()
    exact = reference.shuffle(y.double(), bias.double(), picture.double(), scale)
    plain = reference.shuffle(y, bias, picture, scale)
    check(operators.shuffle(y, bias, picture, scale), exact, plain)


@pytest.mark.parametrize("name", ["sst", "esc"])
def test_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole network by kernels alone, in float32, equals the training form in float64."""
    config = {
        "sst": dataclasses.replace(SMALL, upsampler=UpsamplerConfig("pixelshuffle", 2, 6)),
        "esc": dataclasses.replace(SMALL_ESC, upsampler=UpsamplerConfig("pixelshuffle_direct", 3)),
    }[name]
    network = small_network(config)
    picture = torch.rand(2, 3, 9, 13, generator=seeded(9))
    exact = network.double().upscale(picture.double())
    deployed = gpu_network(network, torch.float32)

    monkeypatch.setattr(layers.WindowAttention, "form", "triton")
    for module in (chain_module, esc, head):
        monkeypatch.setattr(module, "operators", lambda _: operators)
    found = deployed(picture)
    assert ((found - exact).abs().max() / exact.abs().max()).item() <= 1e-5
