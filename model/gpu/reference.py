"""The operators of `flashrib.model.gpu.operators` as their definitions read, in plain PyTorch: any device and dtype."""

import torch.nn.functional as F
from torch import Tensor

from flashrib.model.layers import LAYER_NORM_EPS


def depthwise(source: Tensor, taps: Tensor, taps_bias: Tensor, ffn: bool, other: Tensor | None) -> Tensor:
    """Depthwise 3x3 convolution with zero padding, or source + gelu of it, plus `other` if there is one.

    Args:
        source: (B, H, W, C).
        taps: (9, C or more), or (B, 9, C or more) where every image has its own, row-major.
        taps_bias: (C or more).
        ffn: source + gelu(convolution) in place of the convolution.
        other: (B, H, W, C).
    """
    batch, height, width, channels = source.shape
    weight = taps[..., :channels].mT.reshape(-1, channels, 3, 3).expand(batch, -1, -1, -1).reshape(-1, 1, 3, 3)
    images = source.permute(0, 3, 1, 2).reshape(1, -1, height, width)  # one group per image and channel
    bias = taps_bias[:channels].repeat(batch)
    x = F.conv2d(images, weight.to(source.dtype), bias.to(source.dtype), padding=1, groups=batch * channels)
    x = x.view(batch, channels, height, width).permute(0, 2, 3, 1)
    x = source + F.gelu(x) if ffn else x
    return x if other is None else x + other


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
