"""Operators of the GPU network that see one pixel at a time, registered with PyTorch, so that torch.compile and AOTInductor see through.

Each is written twice, one below the other: as its definition reads, in plain PyTorch, for any device and dtype, and as a launch of its
Triton kernel on a CUDA GPU, for contiguous maps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.gpu import device
from flashrib.model.gpu.symbolic import as_forked, as_wanted, onnx_node
from flashrib.model.gpu.tuning import CHUNK, fits_chain, tile_for, wide_tile_for
from flashrib.model.layers import LAYER_NORM_EPS
from flashrib.model.operators import triton_op, wrap_triton
from flashrib.model.sizes import ceil_div, round_up

if device.HAS_TRITON:
    from flashrib.model.gpu.pointwise_kernels import chain_kernel, fork_kernel, wide_kernel


@onnx_node(as_wanted)
@triton_op("flashrib::gpu_chain")
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
        residual: (B, H, W, C'), C' = `dim` rounded up to a multiple of 8, like x and n; channels beyond `dim` are zero.
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
    if not device.takes_kernels(source):
        dtype, width, dim_width = source.dtype, source.shape[-1], round_up(dim, 8)
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
    sides, channels = source.shape[:3], source.shape[3]
    pixels, dim_width = source.numel() // channels, round_up(dim, 8)
    x_out = source.new_empty(*sides, dim_width) if keep_x else None
    n_out = source.new_empty(*sides, dim_width) if keep_n else None
    y_out = source.new_empty(*sides, out_width) if next_weight is not None else None
    tile = tile_for(0 if weight is None else channels, out_width, source.element_size())
    wrap_triton(chain_kernel)[(ceil_div(pixels, tile.pixels),)](
        source,
        residual,
        weight,
        bias,
        gain,
        offset,
        next_weight,
        next_bias,
        x_out,
        n_out,
        y_out,
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
    return [t for t in (x_out, n_out, y_out) if t is not None]


@onnx_node(as_wanted)
@triton_op("flashrib::gpu_wide")
def wide(
    source: Tensor,
    residual: Tensor | None,
    bias: Tensor,
    start: Tensor | None,
    gain: Tensor | None,
    offset: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    dim: int,
    out_width: int,
    keep_x: bool,
    keep_n: bool,
) -> list[Tensor]:
    """x = source + bias + residual; n = LayerNorm of x; y = gelu(n @ next_weight + next_bias).

    Returns those of x, x + `start`, n and y that are wanted; `start` is (dim), the other arguments are those of `chain`.
    """
    if not device.takes_kernels(source):
        dim_width = source.shape[-1]
        started: list[Tensor] = []
        if start is not None:
            x = source + (bias + start)[:dim_width].to(source.dtype)
            started.append(x if residual is None else x + residual)
        outputs = chain(
            source, residual, None, bias, gain, offset, next_weight, next_bias, dim, out_width, True, keep_x, keep_n
        )
        return [*outputs[:keep_x], *started, *outputs[keep_x:]]
    pixels = source.numel() // source.shape[3]
    x_out = torch.empty_like(source) if keep_x else None
    started_out = torch.empty_like(source) if start is not None else None
    n_out = torch.empty_like(source) if keep_n else None
    y_out = source.new_empty(*source.shape[:3], out_width) if next_weight is not None else None
    tile = wide_tile_for(dim, out_width, source.element_size())
    wrap_triton(wide_kernel)[(ceil_div(pixels, tile.pixels),)](
        source,
        residual,
        bias,
        start,
        gain,
        offset,
        next_weight,
        next_bias,
        x_out,
        started_out,
        n_out,
        y_out,
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
    return [t for t in (x_out, started_out, n_out, y_out) if t is not None]


@onnx_node(as_forked)
@triton_op("flashrib::gpu_fork")
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
        residual: (B, H, W, C), C = `dim` rounded up to a multiple of 8.
        weight: (K or more, C or more), rows and columns of zeros beyond K and `dim`.
        bias: (C or more).
        side_weight: (K or more, S or more), S = `side` rounded up to a multiple of 8.
        side_bias: (S or more).
        dim: channels of x.
        side: channels of the side matmul.

    Returns:
        (B, H, W, C), (B, H, W, S) and (B, any, side), whose sum over the second dimension is that of the side matmul over the picture.
    """
    if not (device.takes_kernels(source) and fits_chain(max(dim, side), source.shape[3], source.shape[3])):
        dtype, width, dim_width, side_width = source.dtype, source.shape[-1], residual.shape[-1], round_up(side, 8)
        x = source @ weight[:width, :dim_width] + bias[:dim_width].to(dtype) + residual
        product = source @ side_weight[:width, :side_width] + side_bias[:side_width].to(dtype)
        return [x, product, product[..., :side].to(bias.dtype).sum((1, 2))[:, None]]
    batch, height, width, channels = source.shape
    pixels = height * width
    tile = tile_for(channels, 0, source.element_size())
    tiles = ceil_div(pixels, tile.pixels)
    x_out = torch.empty_like(residual)
    side_out = source.new_empty(batch, height, width, round_up(side, 8))
    sums = bias.new_empty(batch, tiles, side)
    wrap_triton(fork_kernel)[(tiles, batch)](
        source,
        residual,
        weight,
        bias,
        side_weight,
        side_bias,
        x_out,
        side_out,
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
    return [x_out, side_out, sums]
