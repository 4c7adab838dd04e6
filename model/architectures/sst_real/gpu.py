"""SST-Real for a CUDA GPU: the deployment form with LayerNorms, residuals and gates in fused passes, and the fused attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.architectures.sst_real.deploy import DeployedSSTReal, GatedFFN, SSTRealBlock
from flashrib.model.architectures.sst_real.fold import fold
from flashrib.model.architectures.sst_real.network import SSTReal
from flashrib.model.deploy import channels_first
from flashrib.model.folding import expect
from flashrib.model.gpu.layers import WindowAttention, affine, biasless
from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.network import attend, gate_of
from flashrib.model.gpu.passes import ALIGNED, NOTHING, Begin, Pass, build
from flashrib.runtime.errors import UsageError


class GatedDepthwise(nn.Module):
    """[a, b] = depthwise 3x3 convolution, silu(a) * b: (B, H, W, 2G) -> (B, H, W, G)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        weight, bias = affine(conv)
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda:
            from flashrib.model.depthwise import gated_depthwise3x3

            return gated_depthwise3x3(x, self.weight, self.bias)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        mixed = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=weight.shape[0]).permute(0, 2, 3, 1)
        a, b = mixed.chunk(2, dim=-1)
        return F.silu(a) * b


def begin_attention(attention: deploy.Attention) -> Begin:
    """What the pass before an attention does for it: LayerNorm and qkv; the normalised map is kept where a gate reads it."""
    return Begin(affine(attention.norm), biasless(attention.qkv), keep_n=attention.gate is not None)


class Layer(nn.Module):
    """Attention and FFN: x, n (only for a gate) and y, which is qkv -> the same for the attention `following`, or x alone if it is None."""

    def __init__(
        self, dtype: torch.dtype, attention: deploy.Attention, ffn: GatedFFN, following: deploy.Attention | None
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
            begin=Begin(affine(ffn.norm), affine(ffn.proj)),
        )
        end = Pass(
            hidden,
            dim,
            matmul=affine(ffn.last),
            residual=True,
            keep_x=True,
            begin=NOTHING if following is None else begin_attention(following),
        )
        self.middle, self.end = build(middle, dtype), build(end, dtype)
        self.depthwise = GatedDepthwise(ffn.dwc)

    def forward(self, maps: Maps) -> Maps:
        maps = self.middle(Maps(source=attend(self.attention, self.gate, maps), residual=maps.take("x")))
        return self.end(Maps(source=self.depthwise(maps.take("y")), residual=maps.take("x")))


class Block(nn.Module):
    """See `deploy.SSTRealBlock`: (B, H, W, C) and the low-resolution features -> (B, H, W, C)."""

    def __init__(self, dtype: torch.dtype, block: SSTRealBlock) -> None:
        super().__init__()
        attentions = [expect(deploy.Attention, attention) for attention in block.attentions]
        ffns = [expect(GatedFFN, ffn) for ffn in block.ffns]
        self.fuse, self.fuse_low = (layer and layer.to(dtype) for layer in (block.fuse, block.fuse_low))
        dim = attentions[0].out.out_features
        self.begin = build(Pass(dim, dim, keep_x=True, begin=begin_attention(attentions[0])), dtype)
        self.layers = nn.ModuleList(
            Layer(dtype, attention, ffn, following)
            for attention, ffn, following in zip(attentions, ffns, [*attentions[1:], None], strict=True)
        )
        self.conv = block.conv.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        y = x
        if self.fuse is not None and self.fuse_low is not None:
            y = self.fuse(x) + self.fuse_low(low)
        maps = self.begin(Maps(source=y))
        for layer in self.layers:
            maps = layer(maps)
        return x + channels_first(self.conv, maps.take("x"))


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
        blocks = [expect(SSTRealBlock, block) for block in folded.blocks]
        folded.blocks = nn.ModuleList(Block(dtype, block) for block in blocks)
        for part in (folded.first, folded.low, folded.heads, folded.last):
            part.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
        folded.enlarge = folded.enlarge.to(dtype)
        folded.inside = None if folded.inside is None else folded.inside.to(dtype)
        self.frame = folded

    def forward(self, picture: Tensor, noise: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) and noise, if it is an input, -> (B, 3, 4H, 4W), same dtype."""
        y: Tensor = self.frame(picture.to(self.dtype), None if noise is None else noise.to(self.dtype))
        return y


def gpu(network: SSTReal, dtype: torch.dtype) -> GpuSSTReal:
    """See `flashrib.model.gpu.gpu_network`."""
    return GpuSSTReal(fold(network, head_multiple=8, dtype=torch.float64), dtype)
