"""The frame of the networks for a CUDA GPU, made from the deployment form: few passes over the map, everything constant computed once."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.config import UpscalerConfig
from flashrib.model.gpu.head import build_head
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biasless
from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.passes import ALIGNED, Begin, Matmul, Narrow, Pass, Wide, build


def gate_of(attention: deploy.Attention, dtype: torch.dtype) -> Matmul | Narrow | Wide | None:
    """The pass from the normalised map to the gate's logits without their bias, if the attention has a gate."""
    if attention.gate is None:
        return None
    taps = None if attention.gate_dwc is None else affine(attention.gate_dwc)
    width, inner = attention.gate.in_features, attention.gate.out_features
    return build(Pass(width, inner, taps=taps, matmul=biasless(attention.gate), keep_x=True), dtype)


def attend(attention: WindowAttention, gate: nn.Module | None, maps: Maps) -> Tensor:
    """Attention from n (only for a gate) and y, which is qkv; leaves x."""
    qkv = maps.take("y")
    return attention(qkv, None if gate is None else gate(Maps(source=maps.take("n"))).take("x"))


class GpuNetwork(nn.Module, ABC):
    """First convolution, blocks that end in a convolution, last convolution and head; see `flashrib.model.gpu.gpu_network`.

    The pass after a convolution adds its bias and the residual, and begins the next block.

    Args:
        folded: the deployment form, in float64.
        convs: the convolution at the end of each block.
        begins: for each block what the pass before it does for it.
        dtype: of weights and maps.
    """

    def __init__(
        self,
        folded: deploy.DeployedUpscaler,
        convs: Sequence[nn.Conv2d],
        begins: Sequence[Begin],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.config: UpscalerConfig = folded.config
        self.dtype = dtype
        dim = folded.config.dim
        self.first = Convolution(folded.first.weight, dtype)
        biases = [affine(conv)[1] for conv in (folded.first, *convs)]
        joins = [
            Pass(dim, dim, bias=bias, residual=index > 0, keep_x=True, begin=begin)
            for index, (bias, begin) in enumerate(zip(biases[:-1], begins, strict=True))
        ]
        end = Begin(norm=affine(folded.norm), keep_n=True)
        joins.append(Pass(dim, dim, bias=biases[-1], residual=True, begin=end))
        self.joins = nn.ModuleList(build(join, dtype) for join in joins)
        self.last = Convolution(folded.last.weight, dtype)
        self.sum = build(Pass(dim, dim, bias=affine(folded.last)[1], residual=True, keep_x=True), dtype)
        self.head = build_head(folded.upsampler, dim, dtype)

    @abstractmethod
    def block(self, index: int, maps: Maps) -> Tensor:
        """Block `index` with its convolution but without the convolution's bias; `maps` as the pass before gives them."""

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, rH, rW), same dtype."""
        image = nn.functional.pad(picture.to(self.dtype).permute(0, 2, 3, 1), (0, ALIGNED - 3))
        maps: Maps = self.joins[0](Maps(source=self.first(image)))
        shallow = maps.look("x")
        assert shallow is not None
        for index, join in enumerate(self.joins[1:]):
            x = maps.look("x")
            assert x is not None
            maps.rename("started", "x")  # the block has a map of its own to add to
            inputs = Maps(source=self.block(index, maps), residual=x)
            del maps, x  # gone when the next pass has read them
            maps = join(inputs)
        maps = self.sum(Maps(source=self.last(maps.take("n")), residual=shallow))
        return self.head(maps.take("x"), picture)
