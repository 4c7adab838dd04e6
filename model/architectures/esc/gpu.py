"""ESC-RIB for a CUDA GPU."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from flashrib.model import deploy
from flashrib.model.architectures.esc.config import ESCConfig
from flashrib.model.architectures.esc.deploy import ConvLayer as DeployedConvLayer
from flashrib.model.architectures.esc.deploy import DeployedESC, ESCBlock
from flashrib.model.architectures.esc.fold import fold
from flashrib.model.architectures.esc.network import ESC, pad_to_windows
from flashrib.model.folding import expect
from flashrib.model.gpu.layers import Convolution, WindowAttention, affine, biasless
from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.network import GpuNetwork, attend, gate_of
from flashrib.model.gpu.passes import ALIGNED, Begin, Depthwise, Pass, build
from flashrib.model.gpu.pointwise import fork
from flashrib.model.gpu.spatial import mix, taps
from flashrib.model.gpu.tuning import CHUNK


def banded(kernel: Tensor, pixels: int) -> Tensor:
    """Kernel (P, P, S, S), symmetric in its rows, as `spatial.mix` takes it for groups of `pixels` adjacent pixels.

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
        self.register_buffer("weight", banded(kernel, self.pixels).to(dtype))

    def forward(self, x: Tensor, taps: Tensor) -> Tensor:
        """x (B, H, W, P), taps (B, 9, P or more) -> (B, H, W, P)."""
        return mix(x, self.weight, taps, self.side, self.pixels)


class ConvLayer(nn.Module):
    """Convolutional layer of ESC: x and the first half of its FFN -> the same for what `following` is.

    Args:
        following: the next convolutional layer; None for the last one, which gives the LayerNorm of x by `norm`.
    """

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
        weight, bias = affine(layer.ffn.last)
        for name, rows in (("passed", slice(dim)), ("head", slice(dim, None))):
            self.register_buffer(f"{name}_weight", padded(padded(weight[rows]).T).to(dtype).contiguous())
            self.register_buffer(f"{name}_bias", padded(bias[rows]).float())
        self.depthwise = Depthwise(affine(layer.ffn.dwc), ffn=True)
        weight, bias = affine(layer.squeeze)
        self.register_buffer("squeeze_weight", weight.float().contiguous())
        self.register_buffer("squeeze_bias", bias.float())
        weight, bias = affine(layer.expand)  # outputs as `mix` takes taps: (9, channels padded)
        weight, bias = padded(weight.view(pdim, 9, -1).permute(2, 1, 0)), padded(bias.view(pdim, 9).T)
        self.register_buffer("expand_weight", weight.flatten(1).T.float().contiguous())
        self.register_buffer("expand_bias", bias.flatten().float())
        end = Pass(
            pdim,
            dim,
            matmul=(layer.aggr.weight.detach(), torch.zeros(dim, dtype=torch.float64)),
            residual=True,
            keep_x=following is not None,
            begin=Begin(affine(norm), keep_n=True) if following is None else half_ffn(following.ffn),
        )
        self.end = build(end, dtype)

    def forward(self, maps: Maps) -> Maps:
        u, x = maps.take("y").contiguous(), maps.take("x")
        u = self.depthwise(u)
        x, head, sums = fork(
            u, x, self.passed_weight, self.passed_bias, self.head_weight, self.head_bias, self.dim, self.pdim
        )
        del u
        pixels = head.shape[1] * head.shape[2]
        made = taps(sums, self.squeeze_weight, self.squeeze_bias, self.expand_weight, self.expand_bias, pixels)
        return self.end(Maps(source=self.mixing(head, made), residual=x))


def padded(value: Tensor) -> Tensor:
    """`value` with its last dimension padded to a multiple of 64 by zeros, as the kernels take it."""
    return pad(value, (0, -value.shape[-1] % CHUNK))


def half_ffn(ffn: deploy.FFN) -> Begin:
    """What a pass does to begin an FFN: its LayerNorm, if it has one, and its first matmul with gelu."""
    return Begin(None if ffn.norm is None else affine(ffn.norm), affine(ffn.proj), gelu=True)


class Block(nn.Module):
    """FFN, attention, convolutional layers and a 3x3 convolution without its bias, which the pass after it adds."""

    def __init__(self, dtype: torch.dtype, block: ESCBlock, mixing: Mixing) -> None:
        super().__init__()
        attention, ffn = block.attention, block.ffn
        dim, inner = attention.out.out_features, attention.out.in_features
        layers = [expect(DeployedConvLayer, layer) for layer in block.layers]
        begin = Pass(
            ffn.proj.out_features,
            dim,
            taps=affine(ffn.dwc),
            ffn=True,
            matmul=affine(ffn.last),
            keep_x=True,
            begin=Begin(affine(attention.norm), keep_n=True),
        )
        middle = Pass(
            inner, dim, matmul=affine(attention.out), residual=True, keep_x=True, begin=half_ffn(layers[0].ffn)
        )
        self.begin, self.middle = build(begin, dtype), build(middle, dtype)
        self.qkv = build(Pass(dim, 3 * inner, matmul=biasless(attention.qkv), keep_x=True), dtype)
        self.gate = gate_of(attention, dtype)
        self.attention = WindowAttention(attention, dtype)
        following = [*layers[1:], None]
        self.layers = nn.ModuleList(
            ConvLayer(dtype, layer, mixing, after, block.norm) for layer, after in zip(layers, following, strict=True)
        )
        self.conv = Convolution(block.conv.weight, dtype)

    def forward(self, maps: Maps) -> Tensor:
        """y, the first half of the FFN, taken out of the maps -> the block's result without its residual."""
        maps = self.begin(Maps(source=maps.take("y")))  # without qkv, so that the FFN's map is gone when there is one
        n = maps.take("n")
        maps.put("y", self.qkv(Maps(source=n)).take("x"))
        if self.gate is not None:
            maps.put("n", n)
        del n
        maps = self.middle(Maps(source=attend(self.attention, self.gate, maps), residual=maps.take("x")))
        for layer in self.layers:
            maps = layer(maps)
        return self.conv(maps.take("n"))


class GpuESC(GpuNetwork):
    """ESC-RIB, which pads the picture to whole windows; see `flashrib.model.gpu.gpu_network`."""

    config: ESCConfig

    def __init__(self, folded: DeployedESC, dtype: torch.dtype) -> None:
        blocks = [expect(ESCBlock, block) for block in folded.blocks]
        super().__init__(folded, [block.conv for block in blocks], [half_ffn(block.ffn) for block in blocks], dtype)
        mixing = Mixing(folded.kernel, dtype)
        self.blocks = nn.ModuleList(Block(dtype, block, mixing) for block in blocks)

    def block(self, index: int, maps: Maps) -> Tensor:
        return self.blocks[index](maps)

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        y = super().forward(pad_to_windows(picture, self.config.window))
        return deploy.top_left(y, self.config.scale * height, self.config.scale * width)


def gpu(network: ESC, dtype: torch.dtype) -> GpuESC:
    """See `flashrib.model.gpu.gpu_network`."""
    return GpuESC(fold(network, head_multiple=8, dtype=torch.float64), dtype)
