"""SST for a CUDA GPU."""

from typing import Any

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.gpu.chain import Chain
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine
from flashrib.model.gpu.network import GpuNetwork, attend, gate_of


def begin_attention(attention: deploy.Attention) -> dict[str, Any]:
    """What the pass before an attention does for it: LayerNorm and qkv; the normalised map is kept where a gate reads it."""
    return {
        "norm": affine(attention.norm),
        "following": affine(attention.qkv),
        "keep_n": attention.gate is not None,
    }


class Layer(nn.Module):
    """Attention and FFN: x, n (only for a gate) and qkv -> the same for the attention `following`, or x alone where it is None.

    Maps are taken out of the list of inputs, so that each is freed after its last use.
    """

    def __init__(
        self, dtype: torch.dtype, attention: deploy.Attention, ffn: deploy.FFN, following: deploy.Attention | None
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
        )
        after = {} if following is None else begin_attention(following)
        self.end = Chain(
            dtype, hidden, dim, taps=affine(ffn.dwc), ffn=True, product=affine(ffn.last), keep_x=True, **after
        )

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        x, u = self.middle(attend(self.attention, self.gate, inputs), inputs.pop())
        result: list[Tensor] = self.end(u, x)
        return result


class Block(nn.Module):
    """Layers and a 3x3 convolution without its bias."""

    def __init__(self, dtype: torch.dtype, block: deploy.DeployedSSTBlock) -> None:
        super().__init__()
        following = [*block.attentions[1:], None]
        self.layers = nn.ModuleList(
            Layer(dtype, attention, ffn, after)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
            for attention, ffn, after in zip(block.attentions, block.ffns, following, strict=True)
        )
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
