"""The kernels of the GPU network on the CPU, through Triton's interpreter; `test_interpreted.py` runs this file, see there.

Errors are ratios of the RMS of the definition in float64 on the same (rounded) inputs, and at most twice those of the definition in the
same dtype, plus a rounding floor; in float32 plus 4e-6, the error of the polynomial in gelu.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from flashrib.model.architectures.esc import gpu as esc
from flashrib.model.architectures.esc.network import geometric_ensemble
from flashrib.model.config import UpsamplerConfig
from flashrib.model.gpu import device, gpu_network, layers, pointwise, spatial
from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.passes import Begin, Matmul, Narrow, Pass, Wide, build
from flashrib.model.sizes import round_up
from tests.model.interpreter import language_patched_once
from tests.model.networks import SMALL, SMALL_ESC, small_network
from tests.official import seeded

__all__ = ["language_patched_once"]  # a fixture that every test here takes

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter

DTYPES = [torch.float32, torch.float16]  # Triton 3.6's interpreter multiplies the bit patterns of bfloat16
GELU_ERROR = 4e-6


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed + sum(shape)), dtype=torch.float64)


def fullmap(channels: int, dtype: torch.dtype, seed: int, size: tuple[int, int, int] = (2, 9, 21)) -> Tensor:
    """A map with zeros in the channels that only pad it."""
    x = torch.zeros(*size, round_up(channels, 8), dtype=dtype)
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
    for module in (pointwise, spatial):
        monkeypatch.setattr(module, "wrap_triton", lambda kernel: kernel)


@contextlib.contextmanager
def kernels() -> Iterator[None]:
    """Within the context the operators are kernels, on the CPU too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "takes_kernels", lambda x: True)
        yield


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel does not write stays NaN."""

    def poisoned(self: Tensor, *size: int, **options: Any) -> Tensor:
        flat = size if size and isinstance(size[0], int) else tuple(size[0]) if size else ()
        return self.new_full(flat, float("nan") if self.is_floating_point() else -1, **options)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    monkeypatch.setattr(torch, "empty_like", lambda x, **_: torch.full_like(x, float("nan")))


# fields of a Pass, and of what it begins
PASSES: dict[str, tuple[set[str], set[str]]] = {
    "matmul-norm-matmul": ({"matmul", "residual", "keep_x"}, {"norm", "matmul", "gelu"}),
    "norm-matmul": ({"bias", "residual", "keep_x"}, {"norm", "matmul", "keep_n"}),
    "depthwise-matmul-norm-matmul": ({"taps", "ffn", "matmul", "residual", "keep_x"}, {"norm", "matmul", "keep_n"}),
    "depthwise-matmul-residual": ({"taps", "ffn", "matmul", "residual", "keep_x"}, set()),
    "depthwise-matmul": ({"taps", "matmul", "keep_x"}, set()),
    "bias-residual": ({"bias", "residual", "keep_x"}, set()),
    "norm": ({"bias", "residual"}, {"norm", "keep_n"}),
    "matmul-matmul": ({"matmul", "keep_x"}, {"matmul", "gelu"}),
    "matmul-norm": ({"matmul"}, {"norm", "keep_n"}),
    "in-place": ({"matmul", "residual", "keep_x", "ahead"}, {"norm", "matmul", "gelu"}),
    "in-place-alone": ({"taps", "ffn", "matmul", "residual", "keep_x", "ahead"}, set()),
    "start": ({"bias", "residual", "keep_x"}, {"norm", "matmul", "keep_n", "start"}),
}
MATRICES = ("weight", "next_weight", "sum_weight", "sum_bias", "last_weight", "last_bias")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("dim", "width", "out"), [(20, 24, 45), (90, 70, 130)])
@pytest.mark.parametrize("case", PASSES)
def test_pass(case: str, dim: int, width: int, out: int, dtype: torch.dtype) -> None:
    fields, begun = PASSES[case]
    if dim <= 64:  # one kernel, which adds biases itself
        fields, begun = fields - {"ahead"}, begun - {"start"}
    if "matmul" not in fields:
        width = dim
    values: dict[str, Any] = {
        "taps": (random(width, 1, 3, 3) / 3, random(width)),
        "matmul": (random(dim, width) * width**-0.5, random(dim)),
        "bias": random(dim),
        "ahead": random(dim, seed=3),
    }
    following: dict[str, Any] = {
        "norm": (random(dim, seed=1), random(dim, seed=2)),
        "matmul": (random(out, dim) * dim**-0.5, random(out)),
        "start": random(dim, seed=4),
    }
    begin = Begin(**{name: following.get(name, True) for name in begun})
    wanted = Pass(width, dim, **{name: values.get(name, True) for name in fields}, begin=begin)
    layer, exact_layer = (build(wanted, d) for d in (dtype, torch.float64))
    assert isinstance(layer, Matmul if case == "depthwise-matmul" else Narrow if dim <= 64 else Wide)
    for name in MATRICES:
        if (value := getattr(layer, name, None)) is not None:
            setattr(exact_layer, name, value.double())
    size = (2, 9, 21) if dim <= 64 else (2, 5, 11)  # the depthwise kernel of a wide pass has tests of its own
    maps = {"source": fullmap(width, dtype, 3, size)}
    if "residual" in fields:
        maps["residual"] = fullmap(dim, dtype, 4, size)
    exact = exact_layer(Maps(**{name: t.double() for name, t in maps.items()}))
    plain = layer(Maps(**{name: t.clone() for name, t in maps.items()}))  # the residual may be overwritten
    with kernels():
        ours = layer(Maps(**{name: t.clone() for name, t in maps.items()}))
    names = {"x": wanted.keep_x, "started": "start" in begun, "n": begin.keep_n, "y": "matmul" in begun}
    for name in [name for name, there in names.items() if there]:
        check(*(m.take(name) for m in (ours, exact, plain)), GELU_ERROR if begin.gelu or wanted.ffn else 0.0)
    assert not [*ours, *exact, *plain]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("width", "dim", "side"), [(16, 12, 4), (80, 64, 16), (136, 40, 20)])
def test_fork(width: int, dim: int, side: int, dtype: torch.dtype) -> None:
    source, residual = fullmap(width, dtype, 1), fullmap(dim, dtype, 2)
    weight, side_weight = (
        torch.zeros(round_up(width, 64), 64, dtype=dtype),
        torch.zeros(round_up(width, 64), 64, dtype=dtype),
    )
    bias, side_bias = torch.zeros(64), torch.zeros(64)
    weight[:width, :dim], side_weight[:width, :side] = random(width, dim) * 0.1, random(width, side) * 0.1
    bias[:dim], side_bias[:side] = random(dim), random(side)
    tensors = (source, residual, weight, bias, side_weight, side_bias)
    exact = pointwise.fork(*(t.double() for t in tensors), dim, side)
    plain = pointwise.fork(*tensors, dim, side)
    with kernels():
        *found, sums = pointwise.fork(*tensors, dim, side)
    for ours, right, usual in zip(found, exact, plain, strict=False):
        check(ours, right, usual)
    assert sums.shape[1] > 1
    check(sums.sum(1, keepdim=True), exact[2], plain[2], 1e-6)


@pytest.mark.parametrize(("channels", "tiles"), [(4, 3), (16, 1500), (20, 7)])
def test_taps(channels: int, tiles: int) -> None:
    inner, padded = channels // 2, round_up(channels, 64)
    tensors = [random(2, tiles, channels), random(inner, channels), random(inner), random(9 * padded, inner)]
    tensors = [t.float() for t in (*tensors, random(9 * padded))]
    exact, plain = (spatial.taps(*(t.to(d) for t in tensors), 9 * tiles) for d in (torch.float64, torch.float32))
    with kernels():
        check(spatial.taps(*tensors, 9 * tiles), exact, plain, 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "size"), [(16, (2, 9, 21)), (40, (2, 9, 21)), (184, (1, 9, 11))])
@pytest.mark.parametrize("ffn", [False, True], ids=["plain", "ffn"])
def test_depthwise(ffn: bool, channels: int, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Several images, rows, columns and chunks of channels for programs with 40 channels; all but images with 184."""
    source, padded = fullmap(channels, dtype, 5, size), round_up(channels, 64)
    taps, bias = torch.zeros(9, padded), torch.zeros(padded)
    taps[:, :channels], bias[:channels] = random(9, channels), random(channels)
    exact = spatial.depthwise(source.double(), taps.double(), bias.double(), ffn)
    plain = spatial.depthwise(source, taps, bias, ffn)
    with kernels():
        check(spatial.depthwise(source, taps, bias, ffn), exact, plain, GELU_ERROR)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("half", "size"), [(8, (2, 9, 21)), (24, (2, 9, 21)), (72, (2, 9, 13)), (136, (1, 9, 11))])
def test_gated_depthwise(half: int, size: tuple[int, int, int], dtype: torch.dtype) -> None:
    """Several images, rows and columns for programs with 24 channels; images, rows and chunks with 72; all but images with 136."""
    source, taps, bias = fullmap(2 * half, dtype, 6, size), random(9, 2 * half).float(), random(2 * half).float()
    exact = spatial.gated_depthwise(source.double(), taps.double(), bias.double())
    plain = spatial.gated_depthwise(source, taps, bias)
    with kernels():
        check(spatial.gated_depthwise(source, taps, bias), exact, plain, GELU_ERROR)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("channels", "side"), [(16, 13), (24, 5), (8, 3), (4, 5), (64, 3)])
def test_mix(channels: int, side: int, dtype: torch.dtype) -> None:
    kernel = geometric_ensemble(random(channels, channels, side, side)) * (channels * side**2) ** -0.5
    layer, taps = esc.Mixing(kernel, dtype), torch.zeros(2, 9, 64)
    taps[..., :channels] = random(2, 9, channels) / 3
    source = fullmap(channels, dtype, 8)
    exact = spatial.mix(source.double(), layer.weight.double(), taps.double(), side, layer.pixels)
    plain = spatial.mix(source, layer.weight, taps, side, layer.pixels)
    with kernels():
        check(spatial.mix(source, layer.weight, taps, side, layer.pixels), exact, plain)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shuffle(dtype: torch.dtype, scale: int) -> None:
    y, picture = fullmap(3 * scale**2, dtype, 7), torch.rand(2, 3, 9, 21, generator=seeded(8))
    bias = random(3 * scale**2).float()
    exact = spatial.shuffle(y.double(), bias.double(), picture.double(), scale)
    plain = spatial.shuffle(y, bias, picture, scale)
    with kernels():
        check(spatial.shuffle(y, bias, picture, scale), exact, plain)


@pytest.mark.parametrize("name", ["sst", "esc"])
def test_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole network by kernels alone, in float32, equals the training form in float64."""
    config = {
        "sst": dataclasses.replace(SMALL, upsampler=UpsamplerConfig("pixelshuffle", 2, 6)),
        "esc": dataclasses.replace(SMALL_ESC, upsampler=UpsamplerConfig("pixelshuffle_direct", 3)),
    }[name]
    network = small_network(config)
    picture = torch.rand(2, 3, 5, 9, generator=seeded(9))
    exact = network.double().upscale(picture.double())
    deployed = gpu_network(network, torch.float32)

    monkeypatch.setattr(layers.WindowAttention, "form", "triton")
    with kernels():
        found = deployed(picture)
    assert ((found - exact).abs().max() / exact.abs().max()).item() <= 1e-5
