"""Convolution of channels-last maps as an operator of PyTorch of its own, whose result has the strides that it says.

For packages of AOTInductor: left to itself, PyTorch 2.11 takes the channels-last results of some convolutions for plain ones.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.library.custom_op("flashrib::gpu_convolution", mutates_args=())
def convolution(x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    """(B, H, W, in) and weight (out, in, rows, columns) -> (B, H', W', out), contiguous."""
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=padding)
    return y.permute(0, 2, 3, 1).contiguous()


def convolve(x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    """Convolution (B, H, W, in) -> (B, H', W', out): in a package as the operator, elsewhere as PyTorch's own."""
    if torch.compiler.is_exporting() and not torch.onnx.is_in_onnx_export():
        return convolution(x, weight, padding)
    return F.conv2d(x.permute(0, 3, 1, 2), weight, padding=padding).permute(0, 2, 3, 1)


@convolution.register_fake
def _(x: Tensor, weight: Tensor, padding: list[int]) -> Tensor:
    rows, columns = weight.shape[2:]
    height = x.shape[1] + 2 * padding[0] - rows + 1
    width = x.shape[2] + 2 * padding[1] - columns + 1
    return x.new_empty(x.shape[0], height, width, weight.shape[0])
