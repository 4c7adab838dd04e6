"""SST for a CUDA GPU."""

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.architectures.sst.deploy import DeployedSST, SSTBlock
from flashrib.model.architectures.sst.fold import fold
from flashrib.model.architectures.sst.network import SST
from flashrib.model.folding import expect
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biases_of, biasless, in_order
from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.network import GpuNetwork, attend, gate_of
from flashrib.model.gpu.passes import NOTHING, Begin, Pass, build


def begin_attention(attention: deploy.Attention, start: Tensor | None = None) -> Begin:
    """What the pass before an attention does for it: LayerNorm and qkv; the normalised map is kept where a gate reads it."""
    keep_n = attention.gate is not None
    return Begin(affine(attention.norm), biasless(attention.qkv), keep_n=keep_n, start=start)


def parts(block: SSTBlock) -> tuple[list[deploy.Attention], list[deploy.FFN]]:
    """Attentions and FFNs of a block, in order."""
    return [expect(deploy.Attention, a) for a in block.attentions], [expect(deploy.FFN, f) for f in block.ffns]


class Layer(nn.Module):
    """Attention and FFN: x, n (only for a gate) and y, which is qkv -> the same for the attention `following`, or x alone if it is None.

    Args:
        ahead: (C), biases of this and later layers that x has been given in advance (see `Pass`); None: none.
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
        middle = Pass(
            inner,
            dim,
            matmul=affine(attention.out),
            residual=True,
            keep_x=True,
            ahead=ahead,
            begin=Begin(affine(ffn.norm), affine(ffn.proj), gelu=True),
        )
        end = Pass(
            hidden,
            dim,
            taps=affine(ffn.dwc),
            ffn=True,
            matmul=affine(ffn.last),
            residual=True,
            keep_x=True,
            ahead=None if ahead is None else ahead - affine(attention.out)[1],
            begin=NOTHING if following is None else begin_attention(following),
        )
        self.middle, self.end = build(middle, dtype), build(end, dtype)

    def forward(self, maps: Maps) -> Maps:
        maps = self.middle(Maps(source=attend(self.attention, self.gate, maps), residual=maps.take("x")))
        return self.end(Maps(source=maps.take("y"), residual=maps.take("x")))


class Block(nn.Module):
    """Layers and a 3x3 convolution without its bias."""

    def __init__(self, dtype: torch.dtype, block: SSTBlock) -> None:
        super().__init__()
        self.layers = in_order(Layer, dtype, *parts(block))
        self.conv = Convolution(block.conv.weight, dtype)

    def forward(self, maps: Maps) -> Tensor:
        for layer in self.layers:
            maps = layer(maps)
        return self.conv(maps.take("x"))


class GpuSST(GpuNetwork):
    """SST; see `flashrib.model.gpu.gpu_network`."""

    def __init__(self, folded: DeployedSST, dtype: torch.dtype) -> None:
        blocks = [expect(SSTBlock, block) for block in folded.blocks]
        begins = [begin_attention(parts(block)[0][0], biases_of(*parts(block))) for block in blocks]
        super().__init__(folded, [block.conv for block in blocks], begins, dtype)
        self.blocks = nn.ModuleList(Block(dtype, block) for block in blocks)

    def block(self, index: int, maps: Maps) -> Tensor:
        return self.blocks[index](maps)


def gpu(network: SST, dtype: torch.dtype) -> GpuSST:
    """See `flashrib.model.gpu.gpu_network`."""
    return GpuSST(fold(network, head_multiple=8, dtype=torch.float64), dtype)
