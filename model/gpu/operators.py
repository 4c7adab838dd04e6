"""The kernels of `model.gpu` as operators of PyTorch, so that torch.compile and AOTInductor compile them into what they make."""

import torch
import triton
from torch import Tensor
from torch.library import triton_op, wrap_triton

from flashrib.model.gpu.pointwise_kernels import chain_kernel, fork_kernel, wide_kernel
from flashrib.model.gpu.spatial_kernels import depthwise_kernel, mix_kernel, shuffle_kernel, taps_kernel
from flashrib.model.gpu.tuning import CHUNK, mix_tile_for, strip_for, tile_for, wide_tile_for
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
    """See `flashrib.model.gpu.reference.chain`: those of x, n and y that are wanted, from contiguous maps; `dim` at most CHUNK."""
    sides, channels = source.shape[:3], source.shape[3]
    pixels, dim_width = source.numel() // channels, -(-dim // 8) * 8
    x = source.new_empty(*sides, dim_width) if keep_x else None
    n = source.new_empty(*sides, dim_width) if keep_n else None
    y = source.new_empty(*sides, out_width) if next_weight is not None else None
    tile = tile_for(0 if weight is None else channels, out_width, source.element_size())
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
        PRECISION="tf32x3",
        num_warps=tile.warps,
    )
    return [t for t in (x, n, y) if t is not None]


@triton_op("flashrib::gpu_wide", mutates_args={})
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
    """See `flashrib.model.gpu.reference.wide`: those of x, x + ahead, n and y that are wanted, from contiguous maps."""
    pixels = source.numel() // source.shape[3]
    x = torch.empty_like(source) if keep_x else None
    further = torch.empty_like(source) if ahead is not None else None
    n = torch.empty_like(source) if keep_n else None
    y = source.new_empty(*source.shape[:3], out_width) if next_weight is not None else None
    tile = wide_tile_for(dim, out_width, source.element_size())
    wrap_triton(wide_kernel)[(triton.cdiv(pixels, tile.pixels),)](
        source,
        residual,
        bias,
        ahead,
        gain,
        offset,
        next_weight,
        next_bias,
        x,
        further,
        n,
        y,
        pixels,
        EPS=LAYER_NORM_EPS,
        DIM=dim,
        OUT=out_width,
        BM=tile.pixels,
        CHUNK=CHUNK,
        STAGES=tile.stages,
        PRECISION="tf32x3",
        num_warps=tile.warps,
    )
    return [t for t in (x, further, n, y) if t is not None]


@triton_op("flashrib::gpu_fork", mutates_args={})
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
    """See `flashrib.model.gpu.reference.fork`: x, the side product and its sums; contiguous maps, `dim` and `side` at most CHUNK."""
    batch, height, width, channels = source.shape
    pixels = height * width
    tile = tile_for(channels, 0, source.element_size())
    tiles = triton.cdiv(pixels, tile.pixels)
    x = torch.empty_like(residual)
    product = source.new_empty(batch, height, width, -(-side // 8) * 8)
    sums = bias.new_empty(batch, tiles, side)
    wrap_triton(fork_kernel)[(tiles, batch)](
        source,
        residual,
        weight,
        bias,
        side_weight,
        side_bias,
        x,
        product,
        sums,
        pixels,
        WIDTH=channels,
        DIM=dim,
        SIDE=side,
        BM=tile.pixels,
        CHUNK=CHUNK,
        PRECISION="tf32x3",
        num_warps=tile.warps,
    )
    return [x, product, sums]


@triton_op("flashrib::gpu_taps", mutates_args={})
def taps(
    sums: Tensor,
    squeeze_weight: Tensor,
    squeeze_bias: Tensor,
    expand_weight: Tensor,
    expand_bias: Tensor,
    pixels: int,
) -> Tensor:
    """See `flashrib.model.gpu.reference.taps`; contiguous, float32."""
    batch, tiles, channels = sums.shape
    rows, inner = expand_weight.shape
    padded = triton.next_power_of_2(channels)
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
        P_INNER=triton.next_power_of_2(inner),
        TILES=max(16384 // padded, 16),
        BLOCK=1024,
        num_warps=16,
    )
    return out


@triton_op("flashrib::gpu_mix", mutates_args={})
def mix(source: Tensor, weight: Tensor, taps: Tensor, side: int, pixels: int) -> Tensor:
    """See `flashrib.model.gpu.reference.mix`; contiguous maps, taps of CHUNK channels."""
    batch, height, width, channels = source.shape
    out = torch.empty_like(source)
    tile = mix_tile_for(source.element_size())
    wrap_triton(mix_kernel)[(triton.cdiv(height * triton.cdiv(width, pixels), tile.pixels), batch)](
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


@triton_op("flashrib::gpu_depthwise", mutates_args={})
def depthwise(source: Tensor, taps: Tensor, taps_bias: Tensor, ffn: bool) -> Tensor:
    """See `flashrib.model.gpu.reference.depthwise`; contiguous maps."""
    batch, height, width, channels = source.shape
    out = torch.empty_like(source)
    strip = strip_for(channels)
    strips = batch * triton.cdiv(height, strip.rows) * triton.cdiv(width, 2 * strip.pairs)
    wrap_triton(depthwise_kernel)[(strips * triton.cdiv(channels, strip.channels),)](
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
