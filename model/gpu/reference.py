"""The operators of `flashrib.model.gpu.operators` as their definitions read, in plain PyTorch: any device and dtype."""

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.gpu.convolution import convolve
from flashrib.model.layers import LAYER_NORM_EPS


def depthwise(source: Tensor, taps: Tensor, taps_bias: Tensor, ffn: bool) -> Tensor:
    """Depthwise 3x3 convolution with zero padding, or source + gelu of it.

    Args:
        source: (B, H, W, C).
        taps: (9, C or more), row-major.
        taps_bias: (C or more).
        ffn: source + gelu(convolution) in place of the convolution.
    """
    channels = source.shape[3]
    weight = taps[:, :channels].T.reshape(channels, 1, 3, 3).to(source.dtype)
    bias = taps_bias[:channels].to(source.dtype)
    x = F.conv2d(source.permute(0, 3, 1, 2), weight, bias, padding=1, groups=channels).permute(0, 2, 3, 1)
    return source + F.gelu(x) if ffn else x


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
    half = weight[:, : side * channels, :channels].view(-1, side, channels, channels).permute(3, 2, 0, 1)
    kernel = torch.cat([half.flip(2), half[:, :, 1:]], 2)
    padding = side // 2
    still = convolve(source, kernel, [padding, padding])
    each = taps[..., :channels].mT.reshape(batch * channels, 1, 3, 3).to(source.dtype)
    images = source.permute(0, 3, 1, 2).reshape(1, batch * channels, height, width)  # one group per image and channel
    moving = F.conv2d(images, each, padding=1, groups=batch * channels).view(batch, channels, height, width)
    return still + moving.permute(0, 2, 3, 1)


def chain(
    source: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor,
    gain: Tensor | None,
    offset: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    dim: int,
    out_width: int,
    gelu: bool,
    keep_x: bool,
    keep_n: bool,
) -> list[Tensor]:
    """x = source @ weight + bias + residual; n = LayerNorm of x; y = n @ next_weight + next_bias, or its gelu.

    A step whose tensor is None is left out. Weights may be larger than the maps by rows and columns of zeros.

    Args:
        source: (B, H, W, K).
        residual: (B, H, W, C'), C' = `dim` completed to a multiple of 8, like x and n; channels beyond `dim` are zero.
        weight: (K, dim).
        bias: (dim).
        gain: (dim), of the LayerNorm.
        offset: (dim), of the LayerNorm.
        next_weight: (dim, out_width).
        next_bias: (out_width).
        dim: channels of x and n.
        out_width: width of y in memory.
        gelu: pass y through gelu.
        keep_x: return x.
        keep_n: return n.

    Returns:
        Those of x, n and y that there are and are wanted.
    """
    dtype, width, dim_width = source.dtype, source.shape[-1], -(-dim // 8) * 8
    outputs: list[Tensor] = []
    x = source if weight is None else source @ weight[:width, :dim_width]
    x = x + bias[:dim_width].to(dtype)
    if residual is not None:
        x = x + residual
    if keep_x:
        outputs.append(x)
    if gain is not None and offset is not None:
        n = F.pad(F.layer_norm(x[..., :dim], (dim,), None, None, LAYER_NORM_EPS), (0, dim_width - dim))
        x = n * gain[:dim_width].to(dtype) + offset[:dim_width].to(dtype)
        if keep_n:
            outputs.append(x)
    if next_weight is not None and next_bias is not None:
        y = x @ next_weight[:dim_width, :out_width] + next_bias[:out_width].to(dtype)
        outputs.append(F.gelu(y) if gelu else y)
    return outputs


def wide(
    source: Tensor,
    residual: Tensor | None,
    bias: Tensor,
    ahead: Tensor | None,
    gain: Tensor | None,
    offset: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    dim: int,
    out_width: int,
    keep_x: bool,
    keep_n: bool,
) -> list[Tensor]:
    """x = source + bias + residual; n = LayerNorm of x; y = gelu(n @ next_weight + next_bias): those of x, x + `ahead`, n and y wanted.

    `ahead` is (dim), the other arguments are those of `chain`.
    """
    dim_width = source.shape[-1]
    more: list[Tensor] = []
    if ahead is not None:
        x = source + (bias + ahead)[:dim_width].to(source.dtype)
        more.append(x if residual is None else x + residual)
    outputs = chain(
        source, residual, None, bias, gain, offset, next_weight, next_bias, dim, out_width, True, keep_x, keep_n
    )
    return [*outputs[:keep_x], *more, *outputs[keep_x:]]


def fork(
    source: Tensor,
    residual: Tensor,
    weight: Tensor,
    bias: Tensor,
    side_weight: Tensor,
    side_bias: Tensor,
    dim: int,
    side: int,
) -> list[Tensor]:
    """x = source @ weight + bias + residual, source @ side_weight + side_bias, and sums of the latter.

    Args:
        source: (B, H, W, K).
        residual: (B, H, W, C), C = `dim` completed to a multiple of 8.
        weight: (K or more, C or more), rows and columns of zeros beyond K and `dim`.
        bias: (C or more).
        side_weight: (K or more, S or more), S = `side` completed to a multiple of 8.
        side_bias: (S or more).
        dim: channels of x.
        side: channels of the side product.

    Returns:
        (B, H, W, C), (B, H, W, S) and (B, any, side), whose sum over the second dimension is that of the side product over the picture.
    """
    dtype, width, dim_width, side_width = source.dtype, source.shape[-1], residual.shape[-1], -(-side // 8) * 8
    x = source @ weight[:width, :dim_width] + bias[:dim_width].to(dtype) + residual
    product = source @ side_weight[:width, :side_width] + side_bias[:side_width].to(dtype)
    return [x, product, product[..., :side].to(bias.dtype).sum((1, 2))[:, None]]


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
    inner = F.gelu(F.linear(sums.sum(1) / pixels, squeeze_weight, squeeze_bias))
    return F.linear(inner, expand_weight, expand_bias).view(len(sums), 9, -1)


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
    values = y[..., : bias.numel()].to(picture.dtype) + bias.to(picture.dtype)
    enlarged = picture.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    return F.pixel_shuffle(values.permute(0, 3, 1, 2), scale) + enlarged
