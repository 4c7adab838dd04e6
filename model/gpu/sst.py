"""SST for a CUDA GPU."""

from typing import Any

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.gpu.chain import Chain
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biasless
from flashrib.model.gpu.network import GpuNetwork, attend, gate_of


def begin_attention(attention: deploy.Attention) -> dict[str, Any]:
    """What the pass before an attention does for it: LayerNorm and qkv; the normalised map is kept where a gate reads it."""
    return {
        "norm": affine(attention.norm),
        "following": biasless(attention.qkv),
        "keep_n": attention.gate is not None,
    }


class Layer(nn.Module):
    """Attention and FFN: x, n (only for a gate) and qkv -> the same for the attention `following`, or x alone where it is None.

    Maps are taken out of the list of inputs, so that each is freed after its last use.

    Args:
        before: the layer before this one; None for the first of a block, whose x the end of the block needs again.
    """

    end: Chain

    def __init__(
        self,
        dtype: torch.dtype,
        attention: deploy.Attention,
        ffn: deploy.FFN,
        before: "Layer | None",
        following: deploy.Attention | None,
    ) -> None:
        super().__init__()
        dim, inner, hidden = attention.out.out_features, attention.out.in_features, ffn.proj.out_features
        assert ffn.norm is not None
        self.gate = gate_of(attention, dtype)
        self.attention = WindowAttention(attention, dtype)
        self.middle = Chain(
            dtype,
            inner,
            dim,
            product=affine(attention.out),
            norm=affine(ffn.norm),
            following=affine(ffn.proj),
            gelu=True,
            keep_x=True,
            lacking=None if before is None else before.end.lacking,
            consume=before is not None,
        )
        after = {} if following is None else begin_attention(following)
        self.end = Chain(
            dtype,
            hidden,
            dim,
            taps=affine(ffn.dwc),
            ffn=True,
            product=affine(ffn.last),
            keep_x=True,
            lacking=self.middle.lacking,
            consume=True,
            **after,
        )

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = self.middle([attend(self.attention, self.gate, inputs), inputs.pop()])
        maps.reverse()  # u is the source, x the residual
        result: list[Tensor] = self.end(maps)
        return result


class Block(nn.Module):
    """Layers and a 3x3 convolution without its bias."""

    def __init__(self, dtype: torch.dtype, block: deploy.DeployedSSTBlock) -> None:
        super().__init__()
        layers: list[Layer] = []
        for attention, ffn, following in zip(block.attentions, block.ffns, [*block.attentions[1:], None], strict=True):
            layers.append(Layer(dtype, attention, ffn, layers[-1] if layers else None, following))  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        self.layers = nn.ModuleList(layers)
        self.conv = Convolution(block.conv.weight, dtype)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        for layer in self.layers:
            inputs = layer(inputs)
        y: Tensor = self.conv(inputs[0])
        return y


class GpuSST(GpuNetwork):
    """SST; see `flashrib.model.gpu.gpu_network`."""

    def __init__(self, folded: deploy.DeployedSST, dtype: torch.dtype) -> None:
        blocks: list[deploy.DeployedSSTBlock] = list(folded.blocks)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        begins = [begin_attention(block.attentions[0]) for block in blocks]  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        super().__init__(folded, [block.conv for block in blocks], begins, dtype)
        self.blocks = nn.ModuleList(Block(dtype, block) for block in blocks)

    def block(self, index: int, inputs: list[Tensor]) -> Tensor:
        y: Tensor = self.blocks[index](inputs)
        return y
