"""`Pass`: what stands between two attention layers or 3x3 convolutions, in as few kernels as are fastest.

    a = depthwise 3x3 of the source, or source + gelu(depthwise 3x3 of the source)
    x = a @ weight + bias + residual
    n = LayerNorm of x, with gain and offset
    y = n @ next_weight + next_bias, or its gelu

Each step is there only where it is asked for. The depthwise step is a kernel of its own. The others are done in one of three ways, which
`build` chooses:

    Matmul   nothing but a matmul: the library does it
    Narrow   up to 64 channels, weights within a multiprocessor: one kernel (`pointwise.chain`)
    Wide     otherwise: the library does the first matmul, and the second one where no gelu follows; `pointwise.wide` does the rest

Feature maps are as wide as their channels rounded up to a multiple of 8; the channels added are zero everywhere.

The library adds a matmul to a map in place, but not also a bias. So the residual of a Wide pass may have been given the biases of the
matmuls to come in advance (`Begin.start`); the passes that read it in between subtract what has not happened yet (`Pass.ahead`).
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import pad

from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.pointwise import chain, wide
from flashrib.model.gpu.spatial import depthwise
from flashrib.model.gpu.tuning import CHUNK, fits_chain
from flashrib.model.sizes import round_up

ALIGNED = 8  # widths of maps in memory are multiples of this many channels: 16 bytes

Affine = tuple[Tensor, Tensor]  # weight and bias
Linear = tuple[Tensor, Tensor | None]  # weight, and bias if it is added here


@dataclasses.dataclass(frozen=True, eq=False)
class Begin:
    """What a pass does for the one after it.

    Attributes:
        norm: gain and offset (dim) of the LayerNorm; None: no LayerNorm.
        matmul: weight (out, dim) and bias (out) or None of the second matmul, which makes y.
        gelu: y is passed through gelu.
        keep_n: n is wanted.
        start: (dim), x + start is wanted too, for matmuls to come that add to it in place; only in a Wide pass without a first matmul.
    """

    norm: Affine | None = None
    matmul: Linear | None = None
    gelu: bool = False
    keep_n: bool = False
    start: Tensor | None = None


NOTHING = Begin()


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """A pass over the map.

    Attributes:
        width: channels of the source.
        dim: channels of x.
        taps: weight (width, 1, 3, 3) and bias (width) of the depthwise convolution; None: there is none.
        ffn: add gelu of the depthwise convolution to the source, instead of taking its place.
        matmul: weight (dim, width) and bias (dim) or None; None: x is the source, plus bias and residual.
        bias: (dim), added to x where there is no `matmul`.
        residual: a residual is added.
        keep_x: x is wanted.
        ahead: (dim), a vector already added to the residual in advance, this pass's bias included; x overwrites the residual and keeps the
            vector, minus this pass's bias. None: nothing was added. Only in a Wide pass.
        begin: what it does for the pass after it.
    """

    width: int
    dim: int
    taps: Affine | None = None
    ffn: bool = False
    matmul: Linear | None = None
    bias: Tensor | None = None
    residual: bool = False
    keep_x: bool = False
    ahead: Tensor | None = None
    begin: Begin = NOTHING


def build(wanted: Pass, dtype: torch.dtype) -> "Matmul | Narrow | Wide":
    """Return the module that does a pass: `Maps` with source (B, H, W, width) and residual (B, H, W, dim) -> those of x, started, n and y
    that are wanted.

    Args:
        wanted: the pass.
        dtype: of weights and maps; biases, taps and statistics are float32.
    """
    begin = wanted.begin
    if wanted.matmul is not None and not wanted.residual and begin.norm is None and begin.matmul is None:
        return Matmul(wanted, dtype)
    fits = fits_chain(wanted.dim, 0 if wanted.matmul is None else wanted.width, out_width(begin))
    return Narrow(wanted, dtype) if fits else Wide(wanted, dtype)


def out_width(begin: Begin) -> int:
    """Width of y in memory, 0 where there is none."""
    return 0 if begin.matmul is None else round_up(begin.matmul[0].shape[0], ALIGNED)


class Depthwise(nn.Module):
    """Depthwise 3x3 convolution of a contiguous map, or source + gelu of it: (B, H, W, width) -> same."""

    weight: Tensor
    bias: Tensor

    def __init__(self, taps: Affine, ffn: bool) -> None:
        super().__init__()
        self.ffn = ffn
        self.register_buffer("weight", _vector(taps[0].flatten(1).T))
        self.register_buffer("bias", _vector(taps[1]))

    def forward(self, source: Tensor) -> Tensor:
        return depthwise(source, self.weight, self.bias, self.ffn)


class _Source(nn.Module):
    """The first step of every pass."""

    def __init__(self, wanted: Pass) -> None:
        super().__init__()
        self.depthwise = None if wanted.taps is None else Depthwise(wanted.taps, wanted.ffn)

    def source(self, maps: Maps) -> Tensor:
        source = maps.take("source").contiguous()
        return source if self.depthwise is None else self.depthwise(source)


class Matmul(_Source):
    """A matmul and nothing else but a depthwise step before it."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, wanted: Pass, dtype: torch.dtype) -> None:
        super().__init__(wanted)
        assert wanted.matmul is not None
        weight, bias = _for_library(wanted.matmul, dtype)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, maps: Maps) -> Maps:
        return Maps(x=F.linear(self.source(maps), self.weight, self.bias))


class Narrow(_Source):
    """Up to 64 channels: everything in one kernel, `pointwise.chain`."""

    bias: Tensor
    weight: Tensor | None
    gain: Tensor | None
    offset: Tensor | None
    next_weight: Tensor | None
    next_bias: Tensor | None

    def __init__(self, wanted: Pass, dtype: torch.dtype) -> None:
        super().__init__(wanted)
        begin = wanted.begin
        assert wanted.ahead is None
        assert begin.start is None
        self.dim, self.out_width = wanted.dim, out_width(begin)
        self.keep_x, self.keep_n, self.gelu = wanted.keep_x, begin.keep_n, begin.gelu
        bias = wanted.bias if wanted.matmul is None else wanted.matmul[1]
        self.register_buffer("weight", _for_kernel(wanted.matmul, dtype))
        self.register_buffer("bias", _vector(torch.zeros(self.dim) if bias is None else bias))
        _register_begin(self, begin, dtype)

    def forward(self, maps: Maps) -> Maps:
        source, residual = self.source(maps), maps.find("residual")
        outputs = chain(
            source,
            residual,
            self.weight,
            self.bias,
            self.gain,
            self.offset,
            self.next_weight,
            self.next_bias,
            self.dim,
            self.out_width,
            self.gelu,
            self.keep_x,
            self.keep_n,
        )
        return _named(outputs, x=self.keep_x, n=self.keep_n, y=self.next_weight is not None)


class Wide(_Source):
    """More channels or weights: matmuls by the library, the rest by `pointwise.wide`, which also does a second matmul with gelu."""

    bias: Tensor
    sum_weight: Tensor | None
    sum_bias: Tensor | None
    last_weight: Tensor | None
    last_bias: Tensor | None
    start: Tensor | None
    gain: Tensor | None
    offset: Tensor | None
    next_weight: Tensor | None
    next_bias: Tensor | None

    def __init__(self, wanted: Pass, dtype: torch.dtype) -> None:
        super().__init__(wanted)
        begin, matmul = wanted.begin, wanted.matmul
        self.dim, self.out_width = wanted.dim, out_width(begin)
        self.keep_x, self.keep_n, self.normed = wanted.keep_x, begin.keep_n, begin.norm is not None
        self.in_place = wanted.ahead is not None
        self.split = begin.matmul is not None and not begin.gelu
        bias = torch.zeros(self.dim) if wanted.bias is None else wanted.bias
        sum_weight, sum_bias, last_weight, last_bias = None, None, None, None
        if matmul is not None:
            sum_weight, sum_bias = _for_library((matmul[0], None) if self.in_place else matmul, dtype)
            bias = torch.zeros(self.dim)
            if wanted.ahead is not None:
                bias = -wanted.ahead if matmul[1] is None else matmul[1].detach() - wanted.ahead
        if self.split:
            assert begin.matmul is not None
            last_weight, last_bias = _for_library(begin.matmul, dtype)
            begin = dataclasses.replace(begin, matmul=None)
        self.register_buffer("sum_weight", sum_weight)
        self.register_buffer("sum_bias", sum_bias)
        self.register_buffer("last_weight", last_weight)
        self.register_buffer("last_bias", last_bias)
        self.register_buffer("bias", _vector(bias))
        self.register_buffer("start", None if begin.start is None else _vector(begin.start))
        _register_begin(self, begin, dtype)

    def forward(self, maps: Maps) -> Maps:
        results = self._sum_and_norm(maps)
        if self.last_weight is not None:
            n = results.look("n" if self.normed else "x")
            assert n is not None
            results.put("y", F.linear(n, self.last_weight, self.last_bias))
            if self.normed and not self.keep_n:
                results.take("n")
        return results

    def _sum_and_norm(self, maps: Maps) -> Maps:
        """All but the second matmul of the library, by when the maps that came are not needed any more."""
        source, residual = self.source(maps), maps.find("residual")
        ready: dict[str, Tensor] = {}
        keep_x = self.keep_x
        if self.sum_weight is not None:
            if self.in_place:
                assert residual is not None
                if (
                    torch.onnx.is_in_onnx_export()
                ):  # a graph has no place to write to, and no need of flat maps this way
                    residual = residual + F.linear(source, self.sum_weight)
                else:
                    residual.flatten(0, 2).addmm_(source.flatten(0, 2), self.sum_weight.T)
                source, residual = residual, None
                if keep_x:
                    ready, keep_x = {"x": source}, False
            else:
                source = F.linear(source, self.sum_weight, self.sum_bias)
        if not (keep_x or self.normed or self.next_weight is not None):
            return Maps(**ready)
        keep_n = self.normed and (self.keep_n or self.split)
        outputs = wide(
            source,
            residual,
            self.bias,
            self.start,
            self.gain,
            self.offset,
            self.next_weight,
            self.next_bias,
            self.dim,
            0 if self.split else self.out_width,
            keep_x,
            keep_n,
        )
        kinds = {"x": keep_x, "started": self.start is not None, "n": keep_n, "y": self.next_weight is not None}
        return _named(outputs, ready, **kinds)


def _named(outputs: list[Tensor], ready: dict[str, Tensor] | None = None, **there: bool) -> Maps:
    """Give an operator's outputs, those of `there` that are True in this order, their names."""
    names = [name for name, is_there in there.items() if is_there]
    return Maps(**(ready or {}), **dict(zip(names, outputs, strict=True)))


def _register_begin(module: nn.Module, begin: Begin, dtype: torch.dtype) -> None:
    """The buffers of LayerNorm and second matmul, as the kernels take them."""
    bias = None if begin.matmul is None else begin.matmul[1]
    if begin.matmul is not None and bias is None:
        bias = torch.zeros(out_width(begin))
    module.register_buffer("gain", None if begin.norm is None else _vector(begin.norm[0]))
    module.register_buffer("offset", None if begin.norm is None else _vector(begin.norm[1]))
    module.register_buffer("next_weight", _for_kernel(begin.matmul, dtype))
    module.register_buffer("next_bias", None if bias is None else _vector(bias))


def _for_library(layer: Linear, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """(out, in) and the bias in the same dtype, both sizes padded to multiples of 8 by zeros."""
    weight, bias = layer
    rows, columns = (-size % ALIGNED for size in weight.shape)
    matrix = pad(weight.detach(), (0, columns, 0, rows)).to(dtype).contiguous()
    return matrix, None if bias is None else pad(bias.detach(), (0, rows)).to(dtype)


def _for_kernel(layer: Linear | None, dtype: torch.dtype) -> Tensor | None:
    """(in, out), both sizes padded to multiples of 64 by zeros."""
    if layer is None:
        return None
    matrix = layer[0].detach().T
    return pad(matrix, (0, -matrix.shape[1] % CHUNK, 0, -matrix.shape[0] % CHUNK)).to(dtype).contiguous()


def _vector(value: Tensor) -> Tensor:
    """float32, the last size padded to a multiple of 64 by zeros."""
    return pad(value.detach(), (0, -value.shape[-1] % CHUNK)).float().contiguous()
