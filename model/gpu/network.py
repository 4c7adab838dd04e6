"""The frame of the networks for a CUDA GPU, made from the deployment form: few passes over the map, everything constant computed once."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.config import UpscalerConfig
from flashrib.model.gpu.chain import ALIGNED, Chain
from flashrib.model.gpu.head import build_head
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biasless


def gate_of(attention: deploy.Attention, dtype: torch.dtype) -> Chain | None:
    """The pass from the normalised map to the gate's logits without their bias, if the attention has a gate."""
    if attention.gate is None:
        return None
    taps = None if attention.gate_dwc is None else affine(attention.gate_dwc)
    width, inner = attention.gate.in_features, attention.gate.out_features
    return Chain(dtype, width, inner, taps=taps, product=biasless(attention.gate), keep_x=True)


def attend(attention: WindowAttention, gate: Chain | None, inputs: list[Tensor]) -> Tensor:
    """Attention from the inputs x, n (only for a gate) and qkv; leaves x in the list."""
    qkv = inputs.pop()
    out: Tensor = attention(qkv, gate([inputs.pop()])[0] if gate is not None else None)
    return out


class GpuNetwork(nn.Module, ABC):
    """First convolution, blocks that end in a convolution, last convolution and head; see `flashrib.model.gpu.gpu_network`.

    The pass after a convolution adds its bias and the residual, and begins the next block.

    Args:
        folded: the deployment form, in float64.
        convs: the convolution at the end of each block.
        begins: for each block what the pass before it does for it, as arguments of `Chain`.
        dtype: of weights and maps.
    """

    def __init__(
        self,
        folded: deploy.DeployedUpscaler,
        convs: Sequence[nn.Conv2d],
        begins: Sequence[dict[str, Any]],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.config: UpscalerConfig = folded.config
        self.dtype = dtype
        dim = folded.config.dim
        self.first = Convolution(folded.first.weight, dtype)
        biases = [affine(conv)[1] for conv in (folded.first, *convs)]
        joins = [
            Chain(dtype, dim, dim, bias=bias, keep_x=True, **begin)
            for bias, begin in zip(biases[:-1], begins, strict=True)
        ]
        joins.append(Chain(dtype, dim, dim, bias=biases[-1], norm=affine(folded.norm), keep_n=True))
        self.joins = nn.ModuleList(joins)
        self.last = Convolution(folded.last.weight, dtype)
        self.sum = Chain(dtype, dim, dim, bias=affine(folded.last)[1], keep_x=True)
        self.head = build_head(folded.upsampler, dim, dtype)

    @abstractmethod
    def block(self, index: int, inputs: list[Tensor]) -> Tensor:
        """Block `index` with its convolution but without the convolution's bias; `inputs` as the pass before gives them."""

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, rH, rW), same dtype."""
        image = nn.functional.pad(picture.to(self.dtype).permute(0, 2, 3, 1), (0, ALIGNED - 3))
        inputs: list[Tensor] = self.joins[0]([self.first(image)])
        shallow = x = inputs[0]
        for index, join in enumerate(self.joins[1:]):
            if self.joins[index].start is not None:
                del inputs[0]  # the block has a map of its own to add to
            maps = [self.block(index, inputs), x]
            del inputs, x  # gone when the next pass has read them
            inputs = join(maps)
            x = inputs[0]
        (x,) = self.sum([self.last(x), shallow])
        y: Tensor = self.head(x, picture)
        return y
