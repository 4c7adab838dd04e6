"""Operators of the GPU network that see neighbours or the whole picture, registered with PyTorch like those of `pointwise.py`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.gpu import device
from flashrib.model.gpu.convolution import convolve
from flashrib.model.gpu.symbolic import as_shuffled, as_source, as_taps, onnx_node
from flashrib.model.gpu.tuning import CHUNK, mix_tile_for, strip_for
from flashrib.model.operators import triton_op, wrap_triton
from flashrib.model.sizes import ceil_div

if device.HAS_TRITON:
    from flashrib.model.gpu.spatial_kernels import (
        depthwise_kernel,
        gated_kernel,
        mix_kernel,
        shuffle_kernel,
        taps_kernel,
    )


@onnx_node(as_source)
@triton_op("flashrib::gpu_depthwise")
def depthwise(source: Tensor, taps: Tensor, taps_bias: Tensor, ffn: bool) -> Tensor:
    """Depthwise 3x3 convolution with zero padding, or source + gelu of it.

    Args:
        source: (B, H, W, C).
        taps: (9, C or more), row-major.
        taps_bias: (C or more).
        ffn: source + gelu(convolution) in place of the convolution.
    """
    if not device.takes_kernels(source):
        channels = source.shape[3]
        weight = taps[:, :channels].t().reshape(channels, 1, 3, 3).to(source.dtype)
        bias = taps_bias[:channels].to(source.dtype)
        x = F.conv2d(source.permute(0, 3, 1, 2), weight, bias, padding=1, groups=channels).permute(0, 2, 3, 1)
        return source + F.gelu(x) if ffn else x
    batch, height, width, channels = source.shape
    out = torch.empty_like(source)
    strip = strip_for(channels)
    strips = batch * ceil_div(height, strip.rows) * ceil_div(width, 2 * strip.pairs)
    wrap_triton(depthwise_kernel)[(strips * ceil_div(channels, strip.channels),)](
        source,
        taps,
        taps_bias,
        out,
        height,
        width,
        WIDTH=channels,
        FFN=ffn,
        TH=strip.rows,
        PAIRS=strip.pairs,
        CHUNK=strip.channels,
        num_warps=strip.warps,
    )
    return out


@triton_op("flashrib::gpu_gated_depthwise", mutates_args={})
def _gated_depthwise(source: Tensor, taps: Tensor, taps_bias: Tensor) -> Tensor:
    batch, height, width, channels = source.shape
    half = channels // 2
    out = source.new_empty(batch, height, width, half)
    strip = strip_for(half)
    strips = batch * ceil_div(height, strip.rows) * ceil_div(width, 2 * strip.pairs)
    wrap_triton(gated_kernel)[(strips * ceil_div(half, strip.channels),)](
        source.contiguous(),
        taps,
        taps_bias,
        out,
        height,
        width,
        HALF=half,
        TH=strip.rows,
        PAIRS=strip.pairs,
        CHUNK=strip.channels,
        num_warps=strip.warps,
    )
    return out


def gated_depthwise(source: Tensor, taps: Tensor, taps_bias: Tensor) -> Tensor:
    """[a, b] = depthwise 3x3 convolution with zero padding, silu(a) * b.

    Args:
        source: (B, H, W, 2G).
        taps: (9, 2G), row-major, float32.
        taps_bias: (2G), float32.

    Returns:
        (B, H, W, G).
    """
    if device.takes_kernels(source):
        out: Tensor = _gated_depthwise(source, taps, taps_bias)
        return out
    channels = source.shape[3]
    weight = taps.t().reshape(channels, 1, 3, 3).to(source.dtype)
    bias = taps_bias.to(source.dtype)
    x = F.conv2d(source.permute(0, 3, 1, 2), weight, bias, padding=1, groups=channels).permute(0, 2, 3, 1)
    a, b = x.chunk(2, dim=-1)
    return F.silu(a) * b


@onnx_node(as_source)
@triton_op("flashrib::gpu_mix")
def mix(source: Tensor, weight: Tensor, taps: Tensor, side: int, pixels: int) -> Tensor:
    """Convolution whose kernel is symmetric in its rows, plus a depthwise 3x3 one with taps for every image; zero padding.

    Args:
        source: (B, H, W, C).
        weight: (side // 2 + 1, (pixels + side - 1) * C or more, pixels * C or more), rows and columns of zeros beyond: distance from
            the kernel's middle row; pixel and channel that a group of `pixels` adjacent pixels sees; pixel and channel of the group.
            What the group's first pixel takes from the first `side` pixels is the kernel.
        taps: (B, 9, C or more), row-major.
        side: of the kernel.
        pixels: of a group.

    Returns:
        (B, H, W, C).
    """
    batch, height, width, channels = source.shape
    if not device.takes_kernels(source) or channels > CHUNK:
        half = weight[:, : side * channels, :channels].view(-1, side, channels, channels).permute(3, 2, 0, 1)
        kernel = torch.cat([half.flip(2), half[:, :, 1:]], 2)
        padding = side // 2
        still = convolve(source, kernel, [padding, padding])
        each = taps[..., :channels].mT.reshape(batch * channels, 1, 3, 3).to(source.dtype)
        images = source.permute(0, 3, 1, 2).reshape(
            1, batch * channels, height, width
        )  # one group per image and channel
        moving = F.conv2d(images, each, padding=1, groups=batch * channels).view(batch, channels, height, width)
        return still + moving.permute(0, 2, 3, 1)
    out = torch.empty_like(source)
    tile = mix_tile_for(source.element_size())
    wrap_triton(mix_kernel)[(ceil_div(height * ceil_div(width, pixels), tile.pixels), batch)](
        source,
        weight,
        taps,
        out,
        height,
        width,
        WIDTH=channels,
        SIDE=side,
        PIXELS=pixels,
        OUT=CHUNK,
        BM=tile.pixels,
        BK=CHUNK,
        PRECISION="tf32x3",
        num_warps=tile.warps,
    )
    return out


@onnx_node(as_taps)
@triton_op("flashrib::gpu_taps")
def taps(
    sums: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    pixels: int,
) -> Tensor:
    """Taps of the dynamic depthwise convolution: two layers with a gelu between them, on the means of the channels.

    Args:
        sums: (B, any, P), whose sum over the second dimension is that over the picture.
        squeeze_weight: (inner, P).
        squeeze_bias: (inner).
        expand_weight: (9 * channels, inner), channels P or more.
        expand_bias: (9 * channels).
        pixels: of a picture.

    Returns:
        (B, 9, channels), the taps row-major.
    """
    if not device.takes_kernels(sums):
        hidden = F.gelu(F.linear(sums.sum(1) / pixels, squeeze_weight, squeeze_bias))
        return F.linear(hidden, expand_weight, expand_bias).view(len(sums), 9, -1)
    batch, tiles, channels = sums.shape
    rows, inner = expand_weight.shape
    padded = 1 << (channels - 1).bit_length()
    out = sums.new_empty(batch, 9, rows // 9)
    wrap_triton(taps_kernel)[(batch,)](
        sums,
        squeeze_weight,
        squeeze_bias,
        expand_weight,
        expand_bias,
        out,
        tiles,
        pixels,
        CHANNELS=channels,
        INNER=inner,
        ROWS=rows,
        P_CHANNELS=padded,
        P_INNER=1 << (inner - 1).bit_length(),
        TILES=max(16384 // padded, 16),
        BLOCK=1024,
        num_warps=16,
    )
    return out


@onnx_node(as_shuffled)
@triton_op("flashrib::gpu_shuffle")
def shuffle(y: Tensor, bias: Tensor, picture: Tensor, scale: int) -> Tensor:
    """Pixel shuffle of y + bias, plus the picture enlarged by repetition, in the picture's dtype.

    Args:
        y: (B, H, W, 3r^2 or more), channel c*r^2 + a*r + b goes to channel c at row a and column b of a pixel's square.
        bias: (3r^2), float32.
        picture: (B, 3, H, W).
        scale: r.

    Returns:
        (B, 3, rH, rW).
    """
    if not device.takes_kernels(y):
        values = y[..., : bias.numel()].to(picture.dtype) + bias.to(picture.dtype)
        enlarged = picture.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        return F.pixel_shuffle(values.permute(0, 3, 1, 2), scale) + enlarged
    batch, height, width, channels = y.shape
    out = picture.new_empty(batch, 3, scale * height, scale * width)
    block = 512
    wrap_triton(shuffle_kernel)[(batch * 3 * scale * height, ceil_div(scale * width, block))](
        y.contiguous(),
        bias,
        picture.contiguous(),
        out,
        height,
        width,
        WIDTH=channels,
        SCALE=scale,
        BLOCK=block,
    )
    return out
