"""Layers of the GPU network: attention, 3x3 convolutions and the head, on channels-last maps."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from flashrib.model import deploy
from flashrib.model.attention.window import window_attention
from flashrib.model.config import Window
from flashrib.model.gpu.convolution import convolve
from flashrib.model.gpu.passes import ALIGNED, Affine, Linear
from flashrib.model.gpu.tuning import CHUNK
from flashrib.model.position import constant_codes


def affine(layer: nn.Linear | nn.Conv2d | deploy.Norm) -> Affine:
    """Weight and bias of a layer; those of a LayerNorm without an affine part are ones and zeros."""
    if isinstance(layer, deploy.Norm) and layer.weight is None:
        return torch.ones(layer.dim, dtype=torch.float64), torch.zeros(layer.dim, dtype=torch.float64)
    weight, bias = layer.weight, layer.bias
    assert weight is not None
    assert bias is not None
    return weight.detach(), bias.detach()


def biasless(layer: nn.Linear) -> Linear:
    """Weight of a layer whose bias is added elsewhere."""
    return layer.weight.detach(), None


class Closing(Protocol):
    """An FFN: its last layer adds to x."""

    last: nn.Linear


F = TypeVar("F", bound=Closing)


def biases_of(attentions: Sequence[deploy.Attention], ffns: Sequence[Closing]) -> Tensor | None:
    """Sum of the biases that a block's layers add to x, (C), where they are added in advance: above 64 channels."""
    first, *others = [attention.out for attention in attentions] + [ffn.last for ffn in ffns]
    if first.out_features <= CHUNK:
        return None
    return sum((affine(layer)[1] for layer in others), start=affine(first)[1])


def in_order(
    make: Callable[[torch.dtype, deploy.Attention, F, deploy.Attention | None, Tensor | None], nn.Module],
    dtype: torch.dtype,
    attentions: Sequence[deploy.Attention],
    ffns: Sequence[F],
) -> nn.ModuleList:
    """The layers of a block; each is made of its attention and FFN, the attention that follows, and the biases that x has in advance."""
    ahead = biases_of(attentions, ffns)
    layers = []
    for attention, ffn, following in zip(attentions, ffns, [*attentions[1:], None], strict=True):
        layers.append(make(dtype, attention, ffn, following, ahead))
        if ahead is not None:
            ahead = ahead - affine(attention.out)[1] - affine(ffn.last)[1]
    return nn.ModuleList(layers)


class WindowAttention(nn.Module):
    """The attention operator with its constants, and the gate's logits if there are any.

    It also adds the biases of the matmuls before it, since the library multiplies faster without one.
    """

    pos_q: Tensor
    pos_k: Tensor
    qkv_bias: Tensor
    gate_bias: Tensor | None
    form: str | None = None  # as the operator chooses it

    def __init__(self, layer: deploy.Attention, dtype: torch.dtype) -> None:
        super().__init__()
        self.window: Window = layer.config.window
        self.shift: Window = layer.config.shift
        self.heads = layer.config.heads
        codes = layer.codes
        pos_q, pos_k = constant_codes(codes.rows, codes.columns, codes.to_q, codes.to_k)
        self.register_buffer("pos_q", pos_q.to(dtype))
        self.register_buffer("pos_k", pos_k.to(dtype))
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.register_buffer("qkv_bias", layer.qkv.bias.detach().to(exact))
        self.register_buffer("gate_bias", None if layer.gate is None else layer.gate.bias.detach().to(exact))

    def forward(self, qkv: Tensor, gate: Tensor | None) -> Tensor:
        """qkv (B, H, W, 3*heads*D) and the gate's logits (B, H, W, heads*D), both without their biases -> (B, H, W, heads*D)."""
        return window_attention(
            qkv,
            self.pos_q,
            self.pos_k,
            self.window,
            self.heads,
            self.shift,
            qkv_bias=self.qkv_bias,
            gate=gate,
            gate_bias=None if gate is None else self.gate_bias,
            form=self.form,
        )


class Convolution(nn.Module):
    """Convolution without its bias, on channels-last maps whose widths are multiples of 8: (B, H, W, in) -> (B, H, W, out)."""

    weight: Tensor

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        out, width, *sides = weight.shape
        self.padding = [side // 2 for side in sides]
        weight = pad(weight.detach(), (0, 0, 0, 0, 0, -width % ALIGNED, 0, -out % ALIGNED))
        self.register_buffer("weight", weight.to(dtype, memory_format=torch.channels_last))

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.padding)
