"""`flashrib::add_norm` and `flashrib::gelu`: passes over tokens as operators of PyTorch, by kernels on a GPU, by PyTorch elsewhere."""

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from flashrib.model.gpu.token_kernels import add_norm_kernel, gelu_kernel
from flashrib.model.operators import triton_op, wrap_triton

_BLOCK = 2048  # values of a program


@triton_op("flashrib::add_norm")
def _add_norm(x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total, normal = torch.empty_like(x), torch.empty_like(x)
    _launch(x, y, total, normal, eps)
    return total, normal


@triton_op("flashrib::norm")
def _norm(x: Tensor, eps: float) -> Tensor:
    normal = torch.empty_like(x)
    _launch(x, None, None, normal, eps)
    return normal


@triton_op("flashrib::gelu")
def _gelu(x: Tensor) -> Tensor:
    out = torch.empty_like(x)
    wrap_triton(gelu_kernel)[(triton.cdiv(x.numel(), _BLOCK),)](x, out, x.numel(), BLOCK=_BLOCK)
    return out


def _launch(x: Tensor, y: Tensor | None, total: Tensor | None, normal: Tensor, eps: float) -> None:
    channels = x.shape[-1]
    padded = triton.next_power_of_2(channels)
    rows, block = x.numel() // channels, max(1, _BLOCK // padded)
    wrap_triton(add_norm_kernel)[(triton.cdiv(rows, block),)](
        x, y, total, normal, rows, EPS=eps, C=channels, CP=padded, BM=block
    )


@_add_norm.register_kernel("cpu")  # type: ignore[untyped-decorator]  # torch's own
def _(x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total = x + y
    return total, F.layer_norm(total, total.shape[-1:], None, None, eps)


@_norm.register_kernel("cpu")  # type: ignore[untyped-decorator]  # torch's own
def _(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], None, None, eps)


@_gelu.register_kernel("cpu")  # type: ignore[untyped-decorator]  # torch's own
def _(x: Tensor) -> Tensor:
    return F.gelu(x)


def add_norm(x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + y, and its LayerNorm over the last dimension without an affine part; contiguous tensors of one shape and dtype."""
    total, normal = _add_norm(x, y, eps)
    return total, normal


def norm(x: Tensor, eps: float) -> Tensor:
    """LayerNorm of x over the last dimension without an affine part."""
    y: Tensor = _norm(x, eps)
    return y


def gelu(x: Tensor) -> Tensor:
    """Exact GELU."""
    y: Tensor = _gelu(x)
    return y
