"""ESC-RIB for a CUDA GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import pad

from flashrib.model import deploy
from flashrib.model.esc import pad_to_windows
from flashrib.model.gpu.chain import Chain, up
from flashrib.model.gpu.dispatch import operators
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biasless
from flashrib.model.gpu.network import GpuNetwork, attend, gate_of
from flashrib.model.gpu.tuning import CHUNK

GROUP_CHANNELS = 64  # a convolution of 16 channels is one of 64 on groups of 4 pixels, which matrix units like


class GroupedConvolution(nn.Module):
    """Convolution of few channels, as one of groups of adjacent pixels of a row: (B, H, W, P) -> (B, H, W, P).

    A channels-last map with g pixels of P channels is one with g*P channels, without a copy. Pixel i of group X takes pixel j of
    group X + d by the tap g*d + j - i of the kernel, so the kernel of the groups is a banded one with zeros where there is no tap.
    A width that is no multiple of g takes the plain convolution.
    """

    def __init__(self, kernel: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        channels, side = kernel.shape[0], kernel.shape[-1]
        self.plain = Convolution(kernel, dtype)
        self.width = up(channels)
        self.group = g = max(GROUP_CHANNELS // self.width, 1)
        half = side // 2
        reach = (half + g - 1) // g
        wide = kernel.new_zeros(g, self.width, g, self.width, side, 2 * reach + 1)
        for i in range(g):
            for j in range(g):
                for d in range(-reach, reach + 1):
                    tap = g * d + j - i + half
                    if 0 <= tap < side:
                        wide[i, :channels, j, :channels, :, d + reach] = kernel[..., tap]
        self.wide = Convolution(wide.flatten(0, 1).flatten(1, 2), dtype)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        if width % self.group:
            y: Tensor = self.plain(x)
            return y
        groups = x.contiguous().view(batch, height, width // self.group, self.group * channels)
        y = self.wide(groups)
        return y.reshape(batch, height, width, channels)


class ConvLayer(nn.Module):
    """Convolutional layer of ESC: x and the first half of its FFN -> the same for what `following` is.

    Args:
        following: the next convolutional layer; None for the last one, which gives the LayerNorm of x by `norm`.
    """

    taps: Tensor
    taps_bias: Tensor
    squeeze_weight: Tensor
    squeeze_bias: Tensor
    expand_weight: Tensor
    expand_bias: Tensor
    no_bias: Tensor

    def __init__(
        self,
        dtype: torch.dtype,
        layer: deploy.ConvLayer,
        kernel: GroupedConvolution,
        following: deploy.ConvLayer | None,
        norm: deploy.Norm,
    ) -> None:
        super().__init__()
        self.dtype, self.kernel = dtype, kernel
        self.dim, self.pdim = dim, pdim = layer.dim, layer.pdim
        hidden = layer.ffn.proj.out_features
        weight, bias = affine(layer.ffn.last)
        self.passed = Chain(dtype, hidden, dim, product=(weight[:dim], bias[:dim]), keep_x=True)
        self.head = Chain(dtype, hidden, pdim, product=(weight[dim:], bias[dim:]), keep_x=True)
        taps, taps_bias = affine(layer.ffn.dwc)
        for name, value in (("taps", taps.flatten(1).T), ("taps_bias", taps_bias)):
            self.register_buffer(name, pad(value, (0, -hidden % CHUNK)).float().contiguous())
        weight, bias = affine(layer.squeeze)
        self.register_buffer("squeeze_weight", weight.float())
        self.register_buffer("squeeze_bias", bias.float())
        weight, bias = affine(layer.expand)  # outputs as the depthwise kernel takes taps: (9, channels completed)
        more = (0, -pdim % CHUNK)
        self.register_buffer("expand_weight", pad(weight.view(pdim, 9, -1).permute(2, 1, 0), more).flatten(1).T.float())
        self.register_buffer("expand_bias", pad(bias.view(pdim, 9).T, more).flatten().float())
        self.register_buffer("no_bias", torch.zeros(up(pdim, CHUNK)))
        product = (layer.aggr.weight.detach(), torch.zeros(dim, dtype=torch.float64))
        if following is None:
            self.end = Chain(dtype, pdim, dim, product=product, norm=affine(norm), keep_n=True)
        else:
            self.end = Chain(dtype, pdim, dim, product=product, keep_x=True, **half_ffn(following.ffn))

    def dynamic_taps(self, head: Tensor) -> Tensor:
        """Taps (B, 9, P completed to a multiple of 64), float32, from the mean of the map `head` (B, H, W, P)."""
        mean = head[..., : self.pdim].mean((1, 2), dtype=torch.float32)
        inner = F.gelu(F.linear(mean, self.squeeze_weight, self.squeeze_bias))
        return F.linear(inner, self.expand_weight, self.expand_bias).view(len(mean), 9, -1)

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        u, x = inputs.pop(), inputs.pop()
        u = operators(u).depthwise(u, self.taps, self.taps_bias, True, None)
        (x,) = self.passed([u, x])
        (head,) = self.head([u])
        mixed = operators(u).depthwise(head, self.dynamic_taps(head), self.no_bias, False, self.kernel(head))
        result: list[Tensor] = self.end([mixed, x])
        return result


def half_ffn(ffn: deploy.FFN) -> dict[str, Any]:
    """What a pass needs to begin an FFN: its LayerNorm, if it has one, and its first product with gelu."""
    return {"norm": None if ffn.norm is None else affine(ffn.norm), "following": affine(ffn.proj), "gelu": True}


class Block(nn.Module):
    """FFN, attention, convolutional layers and a 3x3 convolution without its bias, which the pass after it adds."""

    def __init__(self, dtype: torch.dtype, block: deploy.DeployedESCBlock, kernel: GroupedConvolution) -> None:
        super().__init__()
        attention, ffn = block.attention, block.ffn
        dim, inner = attention.out.out_features, attention.out.in_features
        layers: list[deploy.ConvLayer] = list(block.layers)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        self.begin = Chain(
            dtype,
            ffn.proj.out_features,
            dim,
            taps=affine(ffn.dwc),
            ffn=True,
            product=affine(ffn.last),
            norm=affine(attention.norm),
            following=biasless(attention.qkv),
            keep_x=True,
            keep_n=attention.gate is not None,
        )
        self.gate = gate_of(attention, dtype)
        self.attention = WindowAttention(attention, dtype)
        self.middle = Chain(dtype, inner, dim, product=affine(attention.out), keep_x=True, **half_ffn(layers[0].ffn))
        following = [*layers[1:], None]
        self.layers = nn.ModuleList(
            ConvLayer(dtype, layer, kernel, after, block.norm) for layer, after in zip(layers, following, strict=True)
        )
        self.conv = Convolution(block.conv.weight, dtype)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """First half of the FFN, taken out of the list -> the block's result without its residual."""
        inputs = self.begin([inputs.pop()])
        inputs = self.middle([attend(self.attention, self.gate, inputs), inputs.pop()])
        for layer in self.layers:
            inputs = layer(inputs)
        y: Tensor = self.conv(inputs[0])
        return y


class GpuESC(GpuNetwork):
    """ESC-RIB with the completion of the picture to whole windows; see `flashrib.model.gpu.gpu_network`."""

    def __init__(self, folded: deploy.DeployedESC, dtype: torch.dtype) -> None:
        blocks: list[deploy.DeployedESCBlock] = list(folded.blocks)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        super().__init__(folded, [block.conv for block in blocks], [half_ffn(block.ffn) for block in blocks], dtype)
        kernel = GroupedConvolution(folded.kernel.detach(), dtype)
        self.blocks = nn.ModuleList(Block(dtype, block, kernel) for block in blocks)

    def block(self, index: int, inputs: list[Tensor]) -> Tensor:
        y: Tensor = self.blocks[index](inputs)
        return y

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        y = super().forward(pad_to_windows(picture, self.config.windows[0]))
        return y[..., : self.config.scale * height, : self.config.scale * width]
