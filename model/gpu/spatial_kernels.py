"""Kernels of the GPU network that see neighbours or the whole picture: depthwise convolution, its taps by the picture, pixel shuffle."""

# ruff: noqa: RUF005  (Triton knows sums of tuples and no unpacking)

import triton
import triton.language as tl

from flashrib.model.gpu.pointwise_kernels import gelu


@triton.jit
def _finish(value, centre, other, out, target, wanted, FFN: tl.constexpr):
    """Last steps of a pixel of the depthwise convolution."""
    if FFN:
        value = centre + gelu(value)
    if other is not None:
        value += tl.load(other + target, mask=wanted, other=0.0).to(tl.float32)
    tl.store(out + target, value.to(out.dtype.element_ty), mask=wanted)


@triton.jit
def depthwise_kernel(
    source, taps, taps_bias, other, out, H, W, TAPS_STRIDE, WIDTH: tl.constexpr, FFN: tl.constexpr, TH: tl.constexpr, PAIRS: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    """Depthwise 3x3 convolution, or the source + gelu of it, plus `other` if there is one; contiguous maps (B, H, W, WIDTH).

    taps (9, WIDTH), those of the next image TAPS_STRIDE further, and taps_bias (WIDTH) are float32 and completed to multiples of 64
    channels by zeros. Grid: B * ceil(H / TH) * ceil(W / (2 * PAIRS)) * ceil(WIDTH / CHUNK).

    A program makes TH rows of PAIRS pairs of pixels from TH + 2 rows, all of which it reads before it writes: no compiler moves a load
    up over a store, so each row would wait for the one before. A pair (left, right) of pixels shares the four pixels that it reads, a to
    d. Programs of the same pixels are side by side, since their channels share lines of memory.
    """
    PADDED: tl.constexpr = (WIDTH + 63) // 64 * 64
    columns, rows = tl.cdiv(W, 2 * PAIRS), tl.cdiv(H, TH)
    CHUNKS: tl.constexpr = (WIDTH + CHUNK - 1) // CHUNK
    tile = tl.program_id(0) // CHUNKS
    x = ((tile % columns * PAIRS + tl.arange(0, PAIRS)) * 2)[:, None]
    tile = tile // columns
    y = tile % rows * TH
    channel = tl.program_id(0) % CHUNKS * CHUNK + tl.arange(0, CHUNK)[None, :]
    in_b = (x < W) & (channel < WIDTH)
    in_a, in_c, in_d = in_b & (x > 0), in_b & (x < W - 1), in_b & (x < W - 2)
    image = (tile // rows).to(tl.int64)
    start = (image * H + y) * W * WIDTH
    place = x * WIDTH + channel
    t = ()
    for tap in tl.static_range(9):
        t = t + (tl.load(taps + image * TAPS_STRIDE + tap * PADDED + channel),)
    bias = tl.load(taps_bias + channel)

    a, b, c, d = (), (), (), ()
    for r in tl.static_range(TH + 2):
        there = (y + r >= 1) & (y + r <= H)
        row = source + start + (r - 1) * W * WIDTH + place
        a = a + (tl.load(row - WIDTH, mask=in_a & there, other=0.0),)
        b = b + (tl.load(row, mask=in_b & there, other=0.0),)
        c = c + (tl.load(row + WIDTH, mask=in_c & there, other=0.0),)
        d = d + (tl.load(row + 2 * WIDTH, mask=in_d & there, other=0.0),)
    for r in tl.static_range(TH):
        left = tl.zeros((PAIRS, CHUNK), tl.float32) + bias
        right = left
        for i in tl.static_range(3):
            b_i, c_i = b[r + i].to(tl.float32), c[r + i].to(tl.float32)
            left = left + a[r + i].to(tl.float32) * t[3 * i]  # one product at a time: fused with the sum
            left = left + b_i * t[3 * i + 1]
            left = left + c_i * t[3 * i + 2]
            right = right + b_i * t[3 * i]
            right = right + c_i * t[3 * i + 1]
            right = right + d[r + i].to(tl.float32) * t[3 * i + 2]
        target, wanted = start + r * W * WIDTH + place, y + r < H
        _finish(left, b[r + 1].to(tl.float32), other, out, target, in_b & wanted, FFN)
        _finish(right, c[r + 1].to(tl.float32), other, out, target + WIDTH, in_c & wanted, FFN)


@triton.jit
def taps_kernel(
    sums, squeeze_weight, squeeze_bias, expand_weight, expand_bias, taps, tiles, pixels,
    CHANNELS: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, P_CHANNELS: tl.constexpr, P_INNER: tl.constexpr, TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.gpu.reference.taps`; contiguous, float32. Grid: B.

    P_CHANNELS and P_INNER are powers of two that hold CHANNELS and INNER; TILES sums and BLOCK of the ROWS taps are worked on at a time.
    """
    image = tl.program_id(0)
    channel = tl.arange(0, P_CHANNELS)[None, :]
    inner = tl.arange(0, P_INNER)
    total = tl.zeros((TILES, P_CHANNELS), tl.float32)
    first = 0
    while first < tiles:  # Triton's interpreter takes no range up to an argument
        tile = first + tl.arange(0, TILES)[:, None]
        known = (tile < tiles) & (channel < CHANNELS)
        total += tl.load(sums + (image * tiles + tile) * CHANNELS + channel, mask=known, other=0.0)
        first += TILES
    mean = (tl.sum(total, 0) / pixels)[None, :]
    there = (inner[:, None] < INNER) & (channel < CHANNELS)
    squeeze = tl.load(squeeze_weight + inner[:, None] * CHANNELS + channel, mask=there, other=0.0)
    h = tl.sum(squeeze * mean, 1) + tl.load(squeeze_bias + inner, mask=inner < INNER, other=0.0)
    h = 0.5 * h * (1.0 + tl.erf(h * 0.7071067811865476))
    for top in tl.range(0, ROWS, BLOCK):
        row = top + tl.arange(0, BLOCK)
        wanted = (row[:, None] < ROWS) & (inner[None, :] < INNER)
        expand = tl.load(expand_weight + row[:, None] * INNER + inner[None, :], mask=wanted, other=0.0)
        value = tl.sum(expand * h[None, :], 1) + tl.load(expand_bias + row, mask=row < ROWS, other=0.0)
        tl.store(taps + image * ROWS + row, value, mask=row < ROWS)


@triton.jit
def shuffle_kernel(y, bias, picture, out, H, W, WIDTH: tl.constexpr, SCALE: tl.constexpr, BLOCK: tl.constexpr):
    """See `flashrib.model.gpu.reference.shuffle`; y (B, H, W, WIDTH), all contiguous.

    Grid: (B * 3 * SCALE * H, ceil(SCALE * W / BLOCK)): a program makes a piece of a row of the result.
    """
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.program_id(0)
    real = column < SCALE * W
    plane = row // (SCALE * H)  # image and channel
    image, channel = plane // 3, plane % 3
    i, a = row % (SCALE * H) // SCALE, row % SCALE
    j, b = column // SCALE, column % SCALE
    c = channel * SCALE * SCALE + a * SCALE + b
    pixel = (image.to(tl.int64) * H + i) * W + j
    value = tl.load(y + pixel * WIDTH + c, mask=real, other=0.0).to(tl.float32) + tl.load(bias + c)
    value += tl.load(picture + (plane.to(tl.int64) * H + i) * W + j, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row.to(tl.int64) * SCALE * W + column, value.to(out.dtype.element_ty), mask=real)
