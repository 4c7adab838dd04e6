"""SST-Real for a CUDA GPU: the deployment form with LayerNorms, residuals and gates in fused passes, and the fused attention."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.architectures.sst_real.deploy import Blocks, DeployedSSTReal, GatedFFN, SSTRealBlock
from flashrib.model.architectures.sst_real.fold import fold
from flashrib.model.architectures.sst_real.network import SSTReal
from flashrib.model.folding import expect
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biases_of, biasless, in_order
from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.network import attend, gate_of
from flashrib.model.gpu.passes import ALIGNED, NOTHING, Begin, Pass, build
from flashrib.model.gpu.spatial import gated_depthwise
from flashrib.runtime.errors import UsageError


class GatedDepthwise(nn.Module):
    """[a, b] = depthwise 3x3 convolution, silu(a) * b: (B, H, W, 2G) -> (B, H, W, G)."""

    taps: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight, bias = affine(conv)
        self.register_buffer("taps", weight.flatten(1).T.float().contiguous())
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        return gated_depthwise(x, self.taps, self.bias)


def begin_attention(attention: deploy.Attention, start: Tensor | None = None) -> Begin:
    """What the pass before an attention does for it: LayerNorm and qkv; the normalised map is kept where a gate reads it."""
    keep_n = attention.gate is not None
    return Begin(affine(attention.norm), biasless(attention.qkv), keep_n=keep_n, start=start)


def parts(block: SSTRealBlock) -> tuple[list[deploy.Attention], list[GatedFFN]]:
    """Attentions and FFNs of a block, in order."""
    return [expect(deploy.Attention, a) for a in block.attentions], [expect(GatedFFN, f) for f in block.ffns]


class Layer(nn.Module):
    """Attention and FFN: x, n (only for a gate) and y, which is qkv -> the same for the attention `following`, or x alone if it is None.

    Args:
        ahead: (C), biases of this and later layers that x has been given in advance (see `Pass`); None: none.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        attention: deploy.Attention,
        ffn: GatedFFN,
        following: deploy.Attention | None,
        ahead: Tensor | None,
    ) -> None:
        super().__init__()
        dim, inner, hidden = attention.out.out_features, attention.out.in_features, ffn.last.in_features
        self.gate = gate_of(attention, dtype)
        self.attention = WindowAttention(attention, dtype)
        middle = Pass(
            inner,
            dim,
            matmul=affine(attention.out),
            residual=True,
            keep_x=True,
            ahead=ahead,
            begin=Begin(affine(ffn.norm), affine(ffn.proj)),
        )
        end = Pass(
            hidden,
            dim,
            matmul=affine(ffn.last),
            residual=True,
            keep_x=True,
            ahead=None if ahead is None else ahead - affine(attention.out)[1],
            begin=NOTHING if following is None else begin_attention(following),
        )
        self.middle, self.end = build(middle, dtype), build(end, dtype)
        self.depthwise = GatedDepthwise(ffn.dwc)

    def forward(self, maps: Maps) -> Maps:
        maps = self.middle(Maps(source=attend(self.attention, self.gate, maps), residual=maps.take("x")))
        return self.end(Maps(source=self.depthwise(maps.take("y")), residual=maps.take("x")))


class Entry(nn.Module):
    """What stands before the layers of a block: the sum of the convolution before, its bias and the residual, and the fusion.

    Args:
        bias: of the convolution of the block before; None: there is none, the source is the first features.
    """

    def __init__(self, dtype: torch.dtype, block: SSTRealBlock, bias: Tensor | None) -> None:
        super().__init__()
        first, ahead = parts(block)[0][0], biases_of(*parts(block))
        dim = first.out.out_features
        begin = begin_attention(first, ahead)
        self.low = self.mixed = None
        if block.fuse is not None and block.fuse_low is not None:
            self.low = build(Pass(dim, dim, matmul=biasless(block.fuse_low), keep_x=True), dtype)
            mixed = Pass(dim, dim, bias=affine(block.fuse)[1], residual=True, keep_x=ahead is None, begin=begin)
            self.mixed = build(mixed, dtype)
            begin = Begin(matmul=biasless(block.fuse))
        self.join = build(Pass(dim, dim, bias=bias, residual=bias is not None, keep_x=True, begin=begin), dtype)

    def forward(self, maps: Maps, low: Tensor) -> tuple[Tensor, Maps]:
        """Source and residual, and the low-resolution features -> x before the block, and what its layers take."""
        maps = self.join(maps)
        x = maps.look("x")
        assert x is not None
        if self.low is not None and self.mixed is not None:
            maps = self.mixed(Maps(source=maps.take("y"), residual=self.low(Maps(source=low)).take("x")))
        maps.rename("started", "x")  # the layers have a map of their own to add to
        return x, maps


class Block(nn.Module):
    """Layers and a 3x3 convolution without its bias."""

    def __init__(self, dtype: torch.dtype, block: SSTRealBlock) -> None:
        super().__init__()
        self.layers = in_order(Layer, dtype, *parts(block))
        self.conv = Convolution(block.conv.weight, dtype)

    def forward(self, maps: Maps) -> Tensor:
        for layer in self.layers:
            maps = layer(maps)
        y: Tensor = self.conv(maps.take("x"))
        return y


class GpuBlocks(nn.Module):
    """All blocks; the pass after a block's convolution adds its bias and the residual, and begins the next block."""

    def __init__(self, dtype: torch.dtype, blocks: list[SSTRealBlock]) -> None:
        super().__init__()
        biases = [affine(block.conv)[1] for block in blocks]
        before = [None, *biases[:-1]]
        self.entries = nn.ModuleList(Entry(dtype, *pair) for pair in zip(blocks, before, strict=True))
        self.blocks = nn.ModuleList(Block(dtype, block) for block in blocks)
        dim = len(biases[-1])
        self.sum = build(Pass(dim, dim, bias=biases[-1], residual=True, keep_x=True), dtype)

    def forward(self, first: Tensor, low: Tensor, read: Sequence[int]) -> list[Tensor]:
        """See `flashrib.model.architectures.sst_real.deploy.Blocks`."""
        inputs, found = Maps(source=first), []
        for index, (entry, block) in enumerate(zip(self.entries, self.blocks, strict=True)):
            x, maps = entry(inputs, low)
            if index - 1 in read:
                found.append(x)
            inputs = Maps(source=block(maps), residual=x)
            del maps, x  # gone when the next pass has read them
        return [*found, self.sum(inputs).take("x")]


class GpuSSTReal(nn.Module):
    """SST-Real; see `flashrib.model.gpu.gpu_network`. Its frame is that of the deployment form."""

    def __init__(self, folded: DeployedSSTReal, dtype: torch.dtype) -> None:
        super().__init__()
        config = self.config = folded.config
        if config.dim % ALIGNED or config.ffn_dim % ALIGNED:
            raise UsageError(
                f"the form for GPUs wants multiples of {ALIGNED} channels, not {config.dim} and {config.ffn_dim}: use precision fp32"
            )
        self.dtype = dtype
        blocks = [expect(SSTRealBlock, block) for block in expect(Blocks, folded.blocks)]
        folded.blocks = GpuBlocks(dtype, blocks)
        for part in (folded.first, folded.low, folded.heads, folded.last):
            part.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
        folded.enlarge = folded.enlarge.to(dtype)
        folded.inside = None if folded.inside is None else folded.inside.to(dtype)
        self.frame = folded

    def forward(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) and noise, if it is an input, -> (B, 3, 4H, 4W), same dtype."""
        y: Tensor = self.frame(picture.to(self.dtype), None if noise is None else noise.to(self.dtype))
        return y.to(picture.dtype)


def gpu(network: SSTReal, dtype: torch.dtype) -> GpuSSTReal:
    """See `flashrib.model.gpu.gpu_network`."""
    return GpuSSTReal(fold(network, head_multiple=8, dtype=torch.float64), dtype)
