"""SST for a CUDA GPU."""

from typing import Any

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.architectures.sst.deploy import DeployedSST, SSTBlock
from flashrib.model.architectures.sst.fold import fold
from flashrib.model.architectures.sst.network import SST
from flashrib.model.gpu.chain import Chain
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biasless
from flashrib.model.gpu.network import GpuNetwork, attend, gate_of
from flashrib.model.gpu.tuning import CHUNK


def begin_attention(attention: deploy.Attention) -> dict[str, Any]:
    """What the pass before an attention does for it: LayerNorm and qkv; the normalised map is kept where a gate reads it."""
    return {
        "norm": affine(attention.norm),
        "following": biasless(attention.qkv),
        "keep_n": attention.gate is not None,
    }


def biases_of(block: SSTBlock) -> Tensor | None:
    """Sum of the biases that a block's layers add to x, (C), where they are added ahead: above 64 channels."""
    layers: list[nn.Linear] = [attention.out for attention in block.attentions]  # type: ignore[misc]  # a ModuleList forgets what it holds
    layers += [ffn.last for ffn in block.ffns]  # type: ignore[misc]  # as above
    return sum(affine(layer)[1] for layer in layers) if layers[0].out_features > CHUNK else None  # type: ignore[return-value]  # there are layers


class Layer(nn.Module):
    """Attention and FFN: x, n (only for a gate) and qkv -> the same for the attention `following`, or x alone where it is None.

    Maps are taken out of the list of inputs, so that each is freed after its last use.

    Args:
        ahead: (C), what x has more than it should: biases of this and later layers (see `Chain`); None: nothing.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        attention: deploy.Attention,
        ffn: deploy.FFN,
        following: deploy.Attention | None,
        ahead: Tensor | None,
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
            ahead=ahead,
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
            ahead=None if ahead is None else ahead - affine(attention.out)[1],
            **after,
        )

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = self.middle([attend(self.attention, self.gate, inputs), inputs.pop()])
        maps.reverse()  # u is the source, x the residual
        result: list[Tensor] = self.end(maps)
        return result


class Block(nn.Module):
    """Layers and a 3x3 convolution without its bias."""

    def __init__(self, dtype: torch.dtype, block: SSTBlock) -> None:
        super().__init__()
        attentions: list[deploy.Attention] = list(block.attentions)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        ffns: list[deploy.FFN] = list(block.ffns)  # type: ignore[arg-type]  # as above
        ahead = biases_of(block)
        layers = []
        for attention, ffn, following in zip(attentions, ffns, [*attentions[1:], None], strict=True):
            layers.append(Layer(dtype, attention, ffn, following, ahead))
            if ahead is not None:
                ahead = ahead - affine(attention.out)[1] - affine(ffn.last)[1]
        self.layers = nn.ModuleList(layers)
        self.conv = Convolution(block.conv.weight, dtype)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        for layer in self.layers:
            inputs = layer(inputs)
        y: Tensor = self.conv(inputs[0])
        return y


class GpuSST(GpuNetwork):
    """SST; see `flashrib.model.gpu.gpu_network`."""

    def __init__(self, folded: DeployedSST, dtype: torch.dtype) -> None:
        blocks: list[SSTBlock] = list(folded.blocks)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        begins = [{**begin_attention(block.attentions[0]), "start": biases_of(block)} for block in blocks]  # type: ignore[arg-type]  # as above
        super().__init__(folded, [block.conv for block in blocks], begins, dtype)
        self.blocks = nn.ModuleList(Block(dtype, block) for block in blocks)

    def block(self, index: int, inputs: list[Tensor]) -> Tensor:
        y: Tensor = self.blocks[index](inputs)
        return y


def gpu(network: SST, dtype: torch.dtype) -> GpuSST:
    """See `flashrib.model.gpu.gpu_network`."""
    return GpuSST(fold(network, head_multiple=8, dtype=torch.float64), dtype)
