"""ESC-RIB for a CUDA GPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from flashrib.model import deploy
from flashrib.model.architectures.esc.config import ESCConfig
from flashrib.model.architectures.esc.deploy import ConvLayer as DeployedConvLayer
from flashrib.model.architectures.esc.deploy import DeployedESC, ESCBlock
from flashrib.model.architectures.esc.fold import fold
from flashrib.model.architectures.esc.network import ESC, pad_to_windows
from flashrib.model.gpu import reference
from flashrib.model.gpu.chain import ALIGNED, Chain
from flashrib.model.gpu.dispatch import operators
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biasless
from flashrib.model.gpu.network import GpuNetwork, attend, gate_of
from flashrib.model.gpu.tuning import CHUNK, fits_chain


def banded(kernel: Tensor, pixels: int) -> Tensor:
    """Kernel (P, P, S, S), symmetric in its rows, as `operators.mix` takes it for groups of `pixels` adjacent pixels.

    A group sees pixels + S - 1 pixels of a row. Its pixel i takes pixel j of them by the tap j - i, so the weights of a row are a band.
    """
    channels, side = kernel.shape[1:3]
    half = kernel[:, :, side // 2 :].permute(2, 3, 1, 0)  # distance from the middle row, tap, in, out
    weight = kernel.new_zeros(len(half), pixels + side - 1, channels, pixels, channels)
    for i in range(pixels):
        weight[:, i : i + side, :, i] = half
    weight = weight.flatten(3).flatten(1, 2)
    return pad(weight, (0, -weight.shape[2] % CHUNK, 0, -weight.shape[1] % CHUNK))


class Mixing(nn.Module):
    """The convolutions of `flashrib.model.architectures.esc.network.ConvAttention`, the large one and that with taps for every image.

    Args:
        kernel: (P, P, S, S), symmetric in its rows.
        dtype: of weights and maps.
    """

    weight: Tensor

    def __init__(self, kernel: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        missing = -kernel.shape[0] % ALIGNED
        kernel = pad(kernel.detach(), (0, 0, 0, 0, 0, missing, 0, missing))
        self.side = kernel.shape[-1]
        self.pixels = max(CHUNK // kernel.shape[0], 1)
        self.fits = kernel.shape[0] <= CHUNK
        self.register_buffer("weight", banded(kernel, self.pixels).to(dtype))

    def forward(self, x: Tensor, taps: Tensor) -> Tensor:
        """x (B, H, W, P), taps (B, 9, P or more) -> (B, H, W, P)."""
        mix = operators(x).mix if self.fits else reference.mix
        y: Tensor = mix(x, self.weight, taps, self.side, self.pixels)
        return y


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
    passed_weight: Tensor
    passed_bias: Tensor
    head_weight: Tensor
    head_bias: Tensor

    def __init__(
        self,
        dtype: torch.dtype,
        layer: DeployedConvLayer,
        mixing: Mixing,
        following: DeployedConvLayer | None,
        norm: deploy.Norm,
    ) -> None:
        super().__init__()
        self.mixing = mixing
        self.dim, self.pdim = dim, pdim = layer.dim, layer.pdim
        self.fits = fits_chain(max(dim, pdim), layer.ffn.proj.out_features, layer.ffn.proj.out_features)
        weight, bias = affine(layer.ffn.last)
        for name, rows in (("passed", slice(dim)), ("head", slice(dim, None))):
            self.register_buffer(f"{name}_weight", completed(completed(weight[rows]).T).to(dtype).contiguous())
            self.register_buffer(f"{name}_bias", completed(bias[rows]).float())
        taps, taps_bias = affine(layer.ffn.dwc)
        for name, value in (("taps", taps.flatten(1).T), ("taps_bias", taps_bias)):
            self.register_buffer(name, completed(value).float().contiguous())
        weight, bias = affine(layer.squeeze)
        self.register_buffer("squeeze_weight", weight.float().contiguous())
        self.register_buffer("squeeze_bias", bias.float())
        weight, bias = affine(layer.expand)  # outputs as `mix` takes taps: (9, channels completed)
        weight, bias = completed(weight.view(pdim, 9, -1).permute(2, 1, 0)), completed(bias.view(pdim, 9).T)
        self.register_buffer("expand_weight", weight.flatten(1).T.float().contiguous())
        self.register_buffer("expand_bias", bias.flatten().float())
        product = (layer.aggr.weight.detach(), torch.zeros(dim, dtype=torch.float64))
        if following is None:
            self.end = Chain(dtype, pdim, dim, product=product, norm=affine(norm), keep_n=True)
        else:
            self.end = Chain(dtype, pdim, dim, product=product, keep_x=True, **half_ffn(following.ffn))

    def forward(self, inputs: list[Tensor]) -> list[Tensor]:
        u, x = inputs.pop(), inputs.pop()
        u = operators(u).depthwise(u, self.taps, self.taps_bias, True)
        fork = operators(u).fork if self.fits else reference.fork
        x, head, sums = fork(
            u, x, self.passed_weight, self.passed_bias, self.head_weight, self.head_bias, self.dim, self.pdim
        )
        del u
        pixels = head.shape[1] * head.shape[2]
        taps = operators(head).taps(
            sums, self.squeeze_weight, self.squeeze_bias, self.expand_weight, self.expand_bias, pixels
        )
        result: list[Tensor] = self.end([self.mixing(head, taps), x])
        return result


def completed(value: Tensor) -> Tensor:
    """`value` with its last dimension completed to a multiple of 64 by zeros, as the kernels take it."""
    return pad(value, (0, -value.shape[-1] % CHUNK))


def half_ffn(ffn: deploy.FFN) -> dict[str, Any]:
    """What a pass needs to begin an FFN: its LayerNorm, if it has one, and its first product with gelu."""
    return {"norm": None if ffn.norm is None else affine(ffn.norm), "following": affine(ffn.proj), "gelu": True}


class Block(nn.Module):
    """FFN, attention, convolutional layers and a 3x3 convolution without its bias, which the pass after it adds."""

    def __init__(self, dtype: torch.dtype, block: ESCBlock, mixing: Mixing) -> None:
        super().__init__()
        attention, ffn = block.attention, block.ffn
        dim, inner = attention.out.out_features, attention.out.in_features
        layers: list[DeployedConvLayer] = list(block.layers)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        self.begin = Chain(
            dtype,
            ffn.proj.out_features,
            dim,
            taps=affine(ffn.dwc),
            ffn=True,
            product=affine(ffn.last),
            norm=affine(attention.norm),
            keep_x=True,
            keep_n=True,
        )
        self.qkv = Chain(dtype, dim, 3 * inner, product=biasless(attention.qkv), keep_x=True)
        self.gate = gate_of(attention, dtype)
        self.attention = WindowAttention(attention, dtype)
        self.middle = Chain(dtype, inner, dim, product=affine(attention.out), keep_x=True, **half_ffn(layers[0].ffn))
        following = [*layers[1:], None]
        self.layers = nn.ModuleList(
            ConvLayer(dtype, layer, mixing, after, block.norm) for layer, after in zip(layers, following, strict=True)
        )
        self.conv = Convolution(block.conv.weight, dtype)

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """First half of the FFN, taken out of the list -> the block's result without its residual."""
        inputs = self.begin([inputs.pop()])  # without qkv, so that the FFN's map is gone when there is one
        inputs += self.qkv([inputs[-1]])
        if self.gate is None:
            del inputs[-2]
        inputs = self.middle([attend(self.attention, self.gate, inputs), inputs.pop()])
        for layer in self.layers:
            inputs = layer(inputs)
        y: Tensor = self.conv(inputs[0])
        return y


class GpuESC(GpuNetwork):
    """ESC-RIB, which pads the picture to whole windows; see `flashrib.model.gpu.gpu_network`."""

    config: ESCConfig

    def __init__(self, folded: DeployedESC, dtype: torch.dtype) -> None:
        blocks: list[ESCBlock] = list(folded.blocks)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        super().__init__(folded, [block.conv for block in blocks], [half_ffn(block.ffn) for block in blocks], dtype)
        mixing = Mixing(folded.kernel, dtype)
        self.blocks = nn.ModuleList(Block(dtype, block, mixing) for block in blocks)

    def block(self, index: int, inputs: list[Tensor]) -> Tensor:
        y: Tensor = self.blocks[index](inputs)
        return y

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        y = super().forward(pad_to_windows(picture, self.config.window))
        return y[..., : self.config.scale * height, : self.config.scale * width]


def gpu(network: ESC, dtype: torch.dtype) -> GpuESC:
    """See `flashrib.model.gpu.gpu_network`."""
    return GpuESC(fold(network, head_multiple=8, dtype=torch.float64), dtype)
