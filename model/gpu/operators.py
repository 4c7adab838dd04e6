"""The kernels of `model.gpu` as operators of PyTorch, so that torch.compile and AOTInductor compile them into what they make."""

import torch
import triton
from torch import Tensor
from torch.library import triton_op, wrap_triton

from flashrib.model.gpu.triton_kernel import chain_kernel, depthwise_kernel, shuffle_kernel
from flashrib.model.gpu.tuning import CHUNK, strip_for, tile_for
from flashrib.model.layers import LAYER_NORM_EPS


@triton_op("flashrib::gpu_chain", mutates_args={})
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
    """See `flashrib.model.gpu.reference.chain`: those of x, n and y that are wanted, from contiguous maps."""
    sides, channels = source.shape[:3], source.shape[3]
    pixels, dim_width = source.numel() // channels, -(-dim // 8) * 8
    x = source.new_empty(*sides, dim_width) if keep_x else None
    n = source.new_empty(*sides, dim_width) if keep_n else None
    y = source.new_empty(*sides, out_width) if next_weight is not None else None
    tile = tile_for(dim, source.element_size(), weight is not None or next_weight is not None)
    wrap_triton(chain_kernel)[(triton.cdiv(pixels, tile.pixels),)](
        source,
        residual,
        weight,
        bias,
        gain,
        offset,
        next_weight,
        next_bias,
        x,
        n,
        y,
        pixels,
        EPS=LAYER_NORM_EPS,
        WIDTH=channels,
        DIM=dim,
        OUT=out_width,
        GELU=gelu,
        BM=tile.pixels,
        CHUNK=CHUNK,
        STAGES=tile.stages,
        PRECISION="tf32x3",
        num_warps=tile.warps,
    )
    return [t for t in (x, n, y) if t is not None]


@triton_op("flashrib::gpu_depthwise", mutates_args={})
def depthwise(source: Tensor, taps: Tensor, taps_bias: Tensor, ffn: bool, other: Tensor | None) -> Tensor:
    """See `flashrib.model.gpu.reference.depthwise`; contiguous maps."""
    batch, height, width, channels = source.shape
    out = torch.empty_like(source)
    strip = strip_for(channels)
    strips = batch * triton.cdiv(height, strip.rows) * triton.cdiv(width, 2 * strip.pairs)
    wrap_triton(depthwise_kernel)[(strips, triton.cdiv(channels, strip.channels))](
        source,
        taps,
        taps_bias,
        other,
        out,
        height,
        width,
        taps.stride(0) if taps.ndim == 3 else 0,
        WIDTH=channels,
        FFN=ffn,
        TH=strip.rows,
        PAIRS=strip.pairs,
        CHUNK=strip.channels,
        num_warps=strip.warps,
    )
    return out


@triton_op("flashrib::gpu_shuffle", mutates_args={})
def shuffle(y: Tensor, bias: Tensor, picture: Tensor, scale: int) -> Tensor:
    """See `flashrib.model.gpu.reference.shuffle`."""
    batch, height, width, channels = y.shape
    out = picture.new_empty(batch, 3, scale * height, scale * width)
    block = 512
    wrap_triton(shuffle_kernel)[(batch * 3 * scale * height, triton.cdiv(scale * width, block))](
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
