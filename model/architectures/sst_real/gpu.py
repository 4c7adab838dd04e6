"""SST-Real for a CUDA GPU: the deployment form with LayerNorms, residuals and gates in fused passes, and the fused attention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.architectures.sst.gpu import begin_attention
from flashrib.model.architectures.sst_real.deploy import DeployedSSTReal, GatedFFN, SSTRealBlock
from flashrib.model.architectures.sst_real.fold import fold
from flashrib.model.architectures.sst_real.network import SSTReal
from flashrib.model.gpu.chain import ALIGNED, Chain
from flashrib.model.gpu.layers import WindowAttention, affine
from flashrib.model.gpu.network import attend, gate_of
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


class Layer(nn.Module):
    """Attention and FFN: x, n (only for a gate) and qkv -> the same for the attention `following`, or x alone where it is None."""

    def __init__(
        self, dtype: torch.dtype, attention: deploy.Attention, ffn: GatedFFN, following: deploy.Attention | None
    ) -> None:
        super().__init__()
        dim, inner, hidden = attention.out.out_features, attention.out.in_features, ffn.last.in_features
        self.gate = gate_of(attention, dtype)
        self.attention = WindowAttention(attention, dtype)
        self.middle = Chain(
            dtype,
            inner,
            dim,
            product=affine(attention.out),
            norm=affine(ffn.norm),
            following=affine(ffn.proj),
            keep_x=True,
        )
        self.depthwise = GatedDepthwise(ffn.dwc)
        after = {} if following is None else begin_attention(following)
        self.end = Chain(dtype, hidden, dim, product=affine(ffn.last), keep_x=True, **after)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = self.middle([attend(self.attention, self.gate, inputs), inputs.pop()])
        maps = [self.depthwise(maps.pop()), maps.pop()]
        result: list[Tensor] = self.end(maps)
        return result


class Block(nn.Module):
    """See `deploy.SSTRealBlock`: (B, H, W, C) and the low-resolution features -> (B, H, W, C)."""

    def __init__(self, dtype: torch.dtype, block: SSTRealBlock) -> None:
        super().__init__()
        attentions: list[deploy.Attention] = list(block.attentions)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        ffns: list[GatedFFN] = list(block.ffns)  # type: ignore[arg-type]  # as above
        self.fuse, self.fuse_low = (layer and layer.to(dtype) for layer in (block.fuse, block.fuse_low))
        dim = attentions[0].out.out_features
        self.begin = Chain(dtype, dim, dim, keep_x=True, **begin_attention(attentions[0]))
        self.layers = nn.ModuleList(
            Layer(dtype, attention, ffn, following)
            for attention, ffn, following in zip(attentions, ffns, [*attentions[1:], None], strict=True)
        )
        self.conv = block.conv.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        y = x
        if self.fuse is not None and self.fuse_low is not None:
            y = self.fuse(x) + self.fuse_low(low)
        inputs = self.begin([y])
        for layer in self.layers:
            inputs = layer(inputs)
        z: Tensor = x + self.conv(inputs[0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return z


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
        blocks: list[SSTRealBlock] = list(folded.blocks)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        folded.blocks = nn.ModuleList(Block(dtype, block) for block in blocks)
        for part in (folded.first, folded.low, folded.heads, folded.last):
            part.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
        folded.enlarge = folded.enlarge.to(dtype)
        self.frame = folded

    def forward(self, picture: Tensor, noise: Tensor) -> Tensor:
        """(B, 3, H, W) and noise -> (B, 3, 4H, 4W), same dtype."""
        y: Tensor = self.frame(picture.to(self.dtype), noise.to(self.dtype))
        return y


def gpu(network: SSTReal, dtype: torch.dtype) -> GpuSSTReal:
    """See `flashrib.model.gpu.gpu_network`."""
    return GpuSSTReal(fold(network, head_multiple=8, dtype=torch.float64), dtype)
