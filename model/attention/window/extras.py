"""Biases and gate of `window_attention`, for the forms whose kernels do not have them."""

import torch
from torch import Tensor


def biased(qkv: Tensor, bias: Tensor | None) -> Tensor:
    """qkv with the bias (3*heads*D) of the matmul before it, if there is one."""
    return qkv if bias is None else qkv + bias.to(qkv.dtype)


def gated(out: Tensor, gate: Tensor | None, bias: Tensor | None) -> Tensor:
    """`out` times the sigmoid of the gate's logits, to which their bias (heads*D) is added; without a gate `out` itself."""
    return out if gate is None else out * torch.sigmoid(biased(gate, bias))
