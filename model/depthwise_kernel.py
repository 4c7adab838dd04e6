"""Kernels of the depthwise 3x3 convolution for training: cuDNN's gradients of channels-last depthwise convolutions are slow."""

import triton
import triton.language as tl


@triton.jit
def _neighbour(source, pixel, y, x, dy: tl.constexpr, dx: tl.constexpr, H, W, channel, inside, C: tl.constexpr):
    """The map at (y + dy, x + dx), (pixels, channels) in float32, zero outside of the picture."""
    there = inside & (y + dy >= 0) & (y + dy < H) & (x + dx >= 0) & (x + dx < W)
    place = (pixel + dy * W + dx).to(tl.int64)[:, None] * C + channel
    return tl.load(source + place, mask=there[:, None] & (channel < C), other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["count", "H", "W"])
def depthwise_kernel(
    source, weight, bias, count, H, W, out, C: tl.constexpr, FLIP: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """Depthwise 3x3 convolution of maps (B, H, W, C), zero padding. Grid: (ceil(count / BP), ceil(C / BC)).

    Arguments, by name:
        weight: (C, 9) in row-major order; FLIP: read backwards, for the gradient of the source.
        bias: (C) or None.
        count: B*H*W.
    """
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = (tl.program_id(1) * BC + tl.arange(0, BC))[None, :]
    inside = pixel < count
    x = pixel % W
    y = pixel // W % H
    total = tl.zeros((BP, BC), tl.float32)
    if bias is not None:
        total += tl.load(bias + channel, mask=channel < C, other=0.0).to(tl.float32)
    for tap in tl.static_range(9):
        place = 8 - tap if FLIP else tap
        w = tl.load(weight + channel * 9 + place, mask=channel < C, other=0.0).to(tl.float32)
        total += _neighbour(source, pixel, y, x, tap // 3 - 1, tap % 3 - 1, H, W, channel, inside, C) * w
    target = out + pixel.to(tl.int64)[:, None] * C + channel
    tl.store(target, total.to(out.dtype.element_ty), mask=inside[:, None] & (channel < C))


@triton.jit(do_not_specialize=["count", "H", "W"])
def depthwise_weights_kernel(
    source, grad, count, H, W, sums, C: tl.constexpr, STEPS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr
):  # fmt: skip
    """Gradients of the nine weights and of the bias: sums (programs, 10, C), float32, of STEPS * BP pixels each.

    Grid: (ceil(count / (STEPS * BP)), ceil(C / BC)). Nine tiles of products stay in registers and are added up at the end.
    """
    channel = (tl.program_id(1) * BC + tl.arange(0, BC))[None, :]
    zero = tl.zeros((BP, BC), tl.float32)
    a, b, c, d, e, f, g, h, i, total = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    for step in range(STEPS):
        pixel = (tl.program_id(0) * STEPS + step) * BP + tl.arange(0, BP)
        inside = pixel < count
        x = pixel % W
        y = pixel // W % H
        there = inside[:, None] & (channel < C)
        dy = tl.load(grad + pixel.to(tl.int64)[:, None] * C + channel, mask=there, other=0.0).to(tl.float32)
        a += _neighbour(source, pixel, y, x, -1, -1, H, W, channel, inside, C) * dy
        b += _neighbour(source, pixel, y, x, -1, 0, H, W, channel, inside, C) * dy
        c += _neighbour(source, pixel, y, x, -1, 1, H, W, channel, inside, C) * dy
        d += _neighbour(source, pixel, y, x, 0, -1, H, W, channel, inside, C) * dy
        e += _neighbour(source, pixel, y, x, 0, 0, H, W, channel, inside, C) * dy
        f += _neighbour(source, pixel, y, x, 0, 1, H, W, channel, inside, C) * dy
        g += _neighbour(source, pixel, y, x, 1, -1, H, W, channel, inside, C) * dy
        h += _neighbour(source, pixel, y, x, 1, 0, H, W, channel, inside, C) * dy
        i += _neighbour(source, pixel, y, x, 1, 1, H, W, channel, inside, C) * dy
        total += dy
    target = sums + tl.program_id(0) * (10 * C) + tl.program_id(1) * BC + tl.arange(0, BC)
    wanted = tl.program_id(1) * BC + tl.arange(0, BC) < C
    tl.store(target, tl.sum(a, 0), mask=wanted)
    tl.store(target + C, tl.sum(b, 0), mask=wanted)
    tl.store(target + 2 * C, tl.sum(c, 0), mask=wanted)
    tl.store(target + 3 * C, tl.sum(d, 0), mask=wanted)
    tl.store(target + 4 * C, tl.sum(e, 0), mask=wanted)
    tl.store(target + 5 * C, tl.sum(f, 0), mask=wanted)
    tl.store(target + 6 * C, tl.sum(g, 0), mask=wanted)
    tl.store(target + 7 * C, tl.sum(h, 0), mask=wanted)
    tl.store(target + 8 * C, tl.sum(i, 0), mask=wanted)
    tl.store(target + 9 * C, tl.sum(total, 0), mask=wanted)
