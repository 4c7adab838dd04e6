"""Depthwise 3x3 convolution of channels-last maps on a CUDA GPU, with gradients.

Registered as `flashrib::depthwise3x3`, which `torch.compile` sees through.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

from flashrib.model import depthwise_kernel as kernels
from flashrib.model.operators import triton_op, wrap_triton
from flashrib.model.sizes import ceil_div

PIXELS, CHANNELS = 64, 32  # of a program of the convolution
SUMMED_PIXELS, STEPS = 16, 16  # of a step, and steps, of a program that adds up gradients of the weights


def _convolve(source: Tensor, weight: Tensor, bias: Tensor | None, flip: bool) -> Tensor:
    batch, height, width, channels = source.shape
    source, count = source.contiguous(), batch * height * width
    out = torch.empty_like(source)
    grid = (ceil_div(count, PIXELS), ceil_div(channels, CHANNELS))
    wrap_triton(kernels.depthwise_kernel)[grid](
        source,
        weight.reshape(channels, 9),
        bias,
        count,
        height,
        width,
        out,
        C=channels,
        FLIP=flip,
        BP=PIXELS,
        BC=CHANNELS,
    )
    return out


@triton_op("flashrib::depthwise3x3")
def _depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _convolve(x, weight.contiguous(), bias, False)


def _sums(grad: Tensor, x: Tensor) -> Tensor:
    """Gradients of the nine weights and of the bias in the rows of (10, C), float32."""
    batch, height, width, channels = x.shape
    count = batch * height * width
    programs = ceil_div(count, SUMMED_PIXELS * STEPS)
    sums = x.new_empty(programs, 10, channels, dtype=torch.float32)
    wrap_triton(kernels.depthwise_weights_kernel)[(programs, -(-channels // CHANNELS))](
        x, grad, count, height, width, sums, C=channels, STEPS=STEPS, BP=SUMMED_PIXELS, BC=CHANNELS
    )
    return sums.sum(0)


@triton_op("flashrib::depthwise3x3_backward")
def _depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the map, and of the weights and the bias as `_sums` has them."""
    grad, x = grad.to(x.dtype).contiguous(), x.contiguous()
    return _convolve(grad, weight.contiguous(), None, True), _sums(grad, x)


def _save(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0], inputs[1])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = ctx.saved_tensors
    d_x, sums = torch.ops.flashrib.depthwise3x3_backward(grad, x, weight)
    return d_x, sums[:9].mT.reshape(weight.shape).to(weight.dtype), sums[9].to(weight.dtype)


torch.library.register_autograd("flashrib::depthwise3x3", _backward, setup_context=_save)


def depthwise3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise 3x3 convolution with zero padding.

    Args:
        x: (B, H, W, C), contiguous or copied.
        weight: (C, 1, 3, 3); sums are float32, whatever the map's dtype.
        bias: (C), of the weight's dtype.

    Returns:
        (B, H, W, C), dtype of x.
    """
    out: Tensor = torch.ops.flashrib.depthwise3x3(x, weight, bias)
    return out


@triton_op("flashrib::ffn_depthwise3x3")
def _ffn_depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    u = F.gelu(x)
    return u + F.gelu(_convolve(u, weight.contiguous(), bias, False))


@triton_op("flashrib::ffn_depthwise3x3_backward")
def _ffn_depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    u = F.gelu(x)
    mixed = _convolve(u, weight.contiguous(), bias, False)
    grad = grad.to(x.dtype)
    d_mixed = torch.ops.aten.gelu_backward(grad, mixed)
    d_u = grad + _convolve(d_mixed, weight.contiguous(), None, True)
    return torch.ops.aten.gelu_backward(d_u, x), _sums(d_mixed, u)


def _save_ffn(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward_ffn(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias = ctx.saved_tensors
    d_x, sums = torch.ops.flashrib.ffn_depthwise3x3_backward(grad, x, weight, bias)
    return d_x, sums[:9].mT.reshape(weight.shape).to(weight.dtype), sums[9].to(bias.dtype)


torch.library.register_autograd("flashrib::ffn_depthwise3x3", _backward_ffn, setup_context=_save_ffn)


def ffn_depthwise3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """u + gelu(depthwise 3x3 convolution of u) with u = gelu(x); arguments as of `depthwise3x3`.

    Only x is kept for the backward pass, which computes the rest again: a third of what the three steps would keep.
    """
    out: Tensor = torch.ops.flashrib.ffn_depthwise3x3(x, weight, bias)
    return out
