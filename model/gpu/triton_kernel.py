"""The kernels of the GPU network: `chain_kernel`, a tile of pixels through all steps in registers, and the depthwise convolution.

Weights, biases and taps are completed to multiples of 64 channels by zeros, so only maps need masks. In `chain_kernel` a tile's x, all
its channels, is a tuple of chunks in float32: LayerNorm needs no second look at memory, and its result goes into the second product
without leaving the program.
"""

# ruff: noqa: RUF005  (Triton knows sums of tuples and no unpacking)

import triton
import triton.language as tl

# erfc(z / sqrt 2) exp(z^2 / 2) / 2 as a polynomial of z >= 0, fitted so that the error of gelu is least: 3e-6 at most
_E0 = tl.constexpr(0.49988192319869995)
_E1 = tl.constexpr(-0.3973715901374817)
_E2 = tl.constexpr(0.24286121129989624)
_E3 = tl.constexpr(-0.11711671203374863)
_E4 = tl.constexpr(0.042317766696214676)
_E5 = tl.constexpr(-0.010399879887700081)
_E6 = tl.constexpr(0.001505150692537427)
_E7 = tl.constexpr(-0.0000949676832533441)
_HALF_LOG2E = tl.constexpr(-0.7213475204444817)


@triton.jit
def _gelu(x):
    """x Phi(x) = max(x, 0) - |x| erfc(|x| / sqrt 2) / 2, in float32."""
    z = tl.minimum(tl.abs(x), 16.0)  # erfc is zero from there on, and the polynomial finite
    p = _E7 * z + _E6
    p = p * z + _E5
    p = p * z + _E4
    p = p * z + _E3
    p = p * z + _E2
    p = p * z + _E1
    p = p * z + _E0
    return tl.maximum(x, 0.0) - z * (p * tl.exp2(z * z * _HALF_LOG2E))


@triton.jit
def _load(pointers, column, real, WIDTH: tl.constexpr, CHUNK: tl.constexpr):
    """Load a chunk (BM, CHUNK) of a map that is WIDTH channels wide, zero outside of it."""
    if WIDTH % CHUNK == 0:
        return tl.load(pointers + column, mask=real, other=0.0)
    return tl.load(pointers + column, mask=real & (column < WIDTH), other=0.0)


@triton.jit
def _store(pointers, column, real, value, WIDTH: tl.constexpr, CHUNK: tl.constexpr):
    if WIDTH % CHUNK == 0:
        tl.store(pointers + column, value.to(pointers.dtype.element_ty), mask=real)
    else:
        tl.store(pointers + column, value.to(pointers.dtype.element_ty), mask=real & (column < WIDTH))


@triton.jit
def _pixel(pointers, inside, there):
    return tl.load(pointers, mask=inside & there, other=0.0).to(tl.float32)


@triton.jit
def _finish(value, centre, other, out, target, wanted, FFN: tl.constexpr):
    """Last steps of a pixel of the depthwise convolution."""
    if FFN:
        value = centre + _gelu(value)
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
    channels by zeros. Grid: (B * ceil(H / TH) * ceil(W / (2 * PAIRS)), ceil(WIDTH / CHUNK)).

    A program goes down TH rows of PAIRS pairs of pixels and reads every row once: its products go into the sums of three rows of the
    result. A pair (left, right) of pixels shares the four pixels that it reads, a to d.
    """
    PADDED: tl.constexpr = (WIDTH + 63) // 64 * 64
    columns, rows = tl.cdiv(W, 2 * PAIRS), tl.cdiv(H, TH)
    tile = tl.program_id(0)
    x = ((tile % columns * PAIRS + tl.arange(0, PAIRS)) * 2)[:, None]
    tile = tile // columns
    y = tile % rows * TH
    channel = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)[None, :]
    in_b = (x < W) & (channel < WIDTH)
    in_a, in_c, in_d = in_b & (x > 0), in_b & (x < W - 1), in_b & (x < W - 2)
    image = (tile // rows).to(tl.int64)
    start = (image * H + y) * W * WIDTH
    place = x * WIDTH + channel
    t = ()
    for tap in tl.static_range(9):
        t = t + (tl.load(taps + image * TAPS_STRIDE + tap * PADDED + channel),)
    bias = tl.load(taps_bias + channel)

    # sums of the row of the result under the row that is read, and of the same row
    left_below = tl.zeros((PAIRS, CHUNK), tl.float32) + bias
    left_here = left_below
    right_below, right_here, left_centre, right_centre = left_below, left_below, left_below, left_below
    for r in tl.static_range(-1, TH + 1):
        there = (y + r >= 0) & (y + r < H)
        row = source + start + r * W * WIDTH + place
        a, b = _pixel(row - WIDTH, in_a, there), _pixel(row, in_b, there)
        c, d = _pixel(row + WIDTH, in_c, there), _pixel(row + 2 * WIDTH, in_d, there)
        if r >= 1:
            target, wanted = start + (r - 1) * W * WIDTH + place, y + r - 1 < H
            left = left_here + a * t[6] + b * t[7] + c * t[8]
            right = right_here + b * t[6] + c * t[7] + d * t[8]
            _finish(left, left_centre, other, out, target, in_b & wanted, FFN)
            _finish(right, right_centre, other, out, target + WIDTH, in_c & wanted, FFN)
        if r >= 0:
            left_here = left_below + a * t[3] + b * t[4] + c * t[5]
            right_here = right_below + b * t[3] + c * t[4] + d * t[5]
        left_below = bias + a * t[0] + b * t[1] + c * t[2]
        right_below = bias + b * t[0] + c * t[1] + d * t[2]
        left_centre, right_centre = b, c


@triton.jit
def chain_kernel(
    source, residual, weight, bias, gain, offset, next_weight, next_bias, x_out, n_out, y_out, pixels,
    EPS: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr, OUT: tl.constexpr, GELU: tl.constexpr, BM: tl.constexpr, CHUNK: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.gpu.chain.Chain`; contiguous maps. Grid: ceil(pixels / BM).

    Tensors and constants:
        source: (pixels, WIDTH).
        residual: None, or (pixels, DIM completed to a multiple of 8), like x_out and n_out.
        weight: None, or (WIDTH, DIM), completed to whole chunks, as `bias`, `gain`, `offset` (DIM) and `next_bias` (OUT), float32.
        gain, offset: None where there is no LayerNorm.
        next_weight: None, or (DIM, OUT), completed to whole chunks.
        x_out, n_out: None where x and n are not wanted.
        y_out: None, or (pixels, OUT).
        BM: pixels of a tile.
        CHUNK: channels that are worked on at a time.
        STAGES: chunks of weights in flight.
    """
    DIM_WIDTH: tl.constexpr = (DIM + 7) // 8 * 8
    CHUNKS: tl.constexpr = (DIM + CHUNK - 1) // CHUNK
    DIM_PADDED: tl.constexpr = CHUNKS * CHUNK
    OUT_PADDED: tl.constexpr = (OUT + CHUNK - 1) // CHUNK * CHUNK
    dtype = source.dtype.element_ty
    pixel = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)[:, None]
    real = pixel < pixels
    column = tl.arange(0, CHUNK)[None, :]
    row = tl.arange(0, CHUNK)[:, None]

    # x, a tuple of chunks in float32
    h = ()
    if weight is None:
        for j in tl.static_range(CHUNKS):
            h = h + (_load(source + pixel * WIDTH, j * CHUNK + column, real, WIDTH, CHUNK).to(tl.float32),)
    else:
        for _ in tl.static_range(CHUNKS):
            h = h + (tl.zeros((BM, CHUNK), tl.float32),)
        for k in tl.range(0, WIDTH, CHUNK, num_stages=STAGES):
            a = _load(source + pixel * WIDTH, k + column, real, WIDTH, CHUNK)
            g = ()
            for j in tl.static_range(CHUNKS):
                w = tl.load(weight + (k + row) * DIM_PADDED + j * CHUNK + column)
                g = g + (tl.dot(a, w, h[j], input_precision=PRECISION),)
            h = g
    g = ()
    for j in tl.static_range(CHUNKS):
        c = j * CHUNK + column
        a = h[j] + tl.load(bias + c)
        if residual is not None:
            a += _load(residual + pixel * DIM_WIDTH, c, real, DIM_WIDTH, CHUNK).to(tl.float32)
        if x_out is not None:
            _store(x_out + pixel * DIM_WIDTH, c, real, a, DIM_WIDTH, CHUNK)
        g = g + (a,)
    h = g

    if gain is not None:
        total = tl.sum(h[0], 1)
        for j in tl.static_range(1, CHUNKS):
            total += tl.sum(h[j], 1)
        mean = (total / DIM)[:, None]
        square = tl.zeros((BM,), tl.float32)
        g = ()
        for j in tl.static_range(CHUNKS):
            a = h[j] - mean
            if (j + 1) * CHUNK > DIM:
                a = tl.where(j * CHUNK + column < DIM, a, 0.0)
            square += tl.sum(a * a, 1)
            g = g + (a,)
        scale = tl.rsqrt(square / DIM + EPS)[:, None]
        h = ()
        for j in tl.static_range(CHUNKS):
            c = j * CHUNK + column
            a = g[j] * scale * tl.load(gain + c) + tl.load(offset + c)
            if n_out is not None:
                _store(n_out + pixel * DIM_WIDTH, c, real, a, DIM_WIDTH, CHUNK)
            h = h + (a,)

    if next_weight is not None:
        g = ()
        for j in tl.static_range(CHUNKS):
            g = g + (h[j].to(dtype),)
        for o in tl.range(0, OUT, CHUNK, num_stages=STAGES):
            acc = tl.zeros((BM, CHUNK), tl.float32)
            for j in tl.static_range(CHUNKS):
                w = tl.load(next_weight + (j * CHUNK + row) * OUT_PADDED + o + column)
                acc = tl.dot(g[j], w, acc, input_precision=PRECISION)
            acc += tl.load(next_bias + o + column)
            if GELU:
                acc = _gelu(acc)
            _store(y_out + pixel * OUT, o + column, real, acc, OUT, CHUNK)


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
