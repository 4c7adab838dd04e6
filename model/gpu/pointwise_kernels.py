"""Kernels of the GPU network that see one pixel at a time: matmuls, LayerNorm, gelu and residuals in one pass over the map.

Weights, biases and other vectors are padded to multiples of 64 channels by zeros, so only maps need masks. A program has all channels
of its pixels: LayerNorm needs no second look at memory, and its result goes into the next matmul without leaving the program.

Whatever does not depend on a result is loaded before the first store, since no compiler moves a load up over a store: a program waits
for memory once and not at every step.
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
def gelu(x):
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


@triton.constexpr_function
def _piece(missing, CHUNK):
    """Channels of the next piece of a map: CHUNK, or for the last one the power of two >= 16 that holds what is missing."""
    piece = 16
    while piece < min(missing, CHUNK):
        piece *= 2
    return piece


@triton.jit
def chain_kernel(
    source, residual, weight, bias, gain, offset, next_weight, next_bias, x_out, n_out, y_out, pixels,
    EPS: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr, OUT: tl.constexpr, GELU: tl.constexpr, BM: tl.constexpr, CHUNK: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.gpu.pointwise.chain`; contiguous maps, at most CHUNK channels DIM. Grid: ceil(pixels / BM).

    Tensors and constants:
        source: (pixels, WIDTH).
        residual: None, or (pixels, DIM rounded up to a multiple of 8), like x_out and n_out.
        weight: None, or (WIDTH, DIM), padded to multiples of 64, as `bias`, `gain`, `offset` (DIM) and `next_bias` (OUT), float32.
        gain, offset: None where there is no LayerNorm.
        next_weight: None, or (DIM, OUT), padded to multiples of 64.
        x_out, n_out: None where x and n are not wanted.
        y_out: None, or (pixels, OUT).
        BM: pixels of a tile.
        CHUNK: channels that are worked on at a time, to which weights are padded.
    """
    DIM_WIDTH: tl.constexpr = (DIM + 7) // 8 * 8
    OUT_PADDED: tl.constexpr = (OUT + CHUNK - 1) // CHUNK * CHUNK
    dtype = source.dtype.element_ty
    pixel = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)[:, None]
    real = pixel < pixels
    channel = tl.arange(0, CHUNK)[None, :]
    row = tl.arange(0, CHUNK)[:, None]

    a, w = (), ()
    if weight is None:
        x = _load(source + pixel * WIDTH, channel, real, WIDTH, CHUNK).to(tl.float32)
    else:
        for k in tl.static_range(0, WIDTH, CHUNK):
            piece = k + tl.arange(0, _piece(WIDTH - k, CHUNK))
            a = a + (_load(source + pixel * WIDTH, piece[None, :], real, WIDTH, _piece(WIDTH - k, CHUNK)),)
            w = w + (tl.load(weight + piece[:, None] * CHUNK + channel),)
    x_bias = tl.load(bias + channel)
    if residual is not None:
        r = _load(residual + pixel * DIM_WIDTH, channel, real, DIM_WIDTH, CHUNK)
    if gain is not None:
        scale, shift = tl.load(gain + channel), tl.load(offset + channel)
    next_w, next_b = (), ()
    if next_weight is not None:
        for o in tl.static_range(0, OUT, CHUNK):
            column = o + tl.arange(0, _piece(OUT - o, CHUNK))[None, :]
            next_w = next_w + (tl.load(next_weight + row * OUT_PADDED + column),)
            next_b = next_b + (tl.load(next_bias + column),)

    if weight is not None:
        x = tl.zeros((BM, CHUNK), tl.float32)
        for k in tl.static_range(len(a)):
            x = tl.dot(a[k], w[k], x, input_precision=PRECISION)
    x += x_bias
    if residual is not None:
        x += r.to(tl.float32)
    if x_out is not None:
        _store(x_out + pixel * DIM_WIDTH, channel, real, x, DIM_WIDTH, CHUNK)
    if gain is not None:
        x -= (tl.sum(x, 1) / DIM)[:, None]
        if DIM < CHUNK:
            x = tl.where(channel < DIM, x, 0.0)
        x = x * tl.rsqrt(tl.sum(x * x, 1) / DIM + EPS)[:, None] * scale + shift
        if n_out is not None:
            _store(n_out + pixel * DIM_WIDTH, channel, real, x, DIM_WIDTH, CHUNK)
    if next_weight is not None:
        n = x.to(dtype)
        for o in tl.static_range(0, OUT, CHUNK):
            y = tl.dot(n, next_w[o // CHUNK], input_precision=PRECISION) + next_b[o // CHUNK]
            if GELU:
                y = gelu(y)
            column = o + tl.arange(0, _piece(OUT - o, CHUNK))[None, :]
            _store(y_out + pixel * OUT, column, real, y, OUT, _piece(OUT - o, CHUNK))


@triton.jit
def wide_kernel(
    source, residual, bias, ahead, gain, offset, next_weight, next_bias, x_out, ahead_out, n_out, y_out, pixels,
    EPS: tl.constexpr, DIM: tl.constexpr, OUT: tl.constexpr, BM: tl.constexpr, CHUNK: tl.constexpr, STAGES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.gpu.pointwise.wide`; contiguous maps of any number of channels. Grid: ceil(pixels / BM).

    x is a tuple of chunks in float32, all channels of the tile.

    Tensors and constants:
        source, residual, x_out, ahead_out, n_out: (pixels, DIM rounded up to a multiple of 8); None where there is none.
        bias, ahead, gain, offset: (DIM), next_bias: (OUT), float32, padded to multiples of CHUNK; None where there is none.
        next_weight: None, or (DIM, OUT), padded to multiples of CHUNK.
        y_out: None, or (pixels, OUT).
        BM: pixels of a tile.
        CHUNK: channels that are worked on at a time.
        STAGES: chunks of weights in flight.
    """
    WIDTH: tl.constexpr = (DIM + 7) // 8 * 8
    CHUNKS: tl.constexpr = (DIM + CHUNK - 1) // CHUNK
    OUT_PADDED: tl.constexpr = (OUT + CHUNK - 1) // CHUNK * CHUNK
    dtype = source.dtype.element_ty
    pixel = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)[:, None]
    real = pixel < pixels
    column = tl.arange(0, CHUNK)[None, :]

    x = ()
    for j in tl.static_range(CHUNKS):
        c = j * CHUNK + column
        a = _load(source + pixel * WIDTH, c, real, WIDTH, CHUNK).to(tl.float32) + tl.load(bias + c)
        if residual is not None:
            a += _load(residual + pixel * WIDTH, c, real, WIDTH, CHUNK).to(tl.float32)
        x = x + (a,)
    scale, shift = (), ()
    if gain is not None:
        for j in tl.static_range(CHUNKS):
            scale, shift = (
                scale + (tl.load(gain + j * CHUNK + column),),
                shift + (tl.load(offset + j * CHUNK + column),),
            )
    if ahead is not None:
        more = ()
        for j in tl.static_range(CHUNKS):
            more = more + (tl.load(ahead + j * CHUNK + column),)
    for j in tl.static_range(CHUNKS):
        if x_out is not None:
            _store(x_out + pixel * WIDTH, j * CHUNK + column, real, x[j], WIDTH, CHUNK)
        if ahead is not None:
            _store(ahead_out + pixel * WIDTH, j * CHUNK + column, real, x[j] + more[j], WIDTH, CHUNK)
    if gain is not None:
        total = tl.sum(x[0], 1)
        for j in tl.static_range(1, CHUNKS):
            total += tl.sum(x[j], 1)
        mean = (total / DIM)[:, None]
        square = tl.zeros((BM,), tl.float32)
        centred = ()
        for j in tl.static_range(CHUNKS):
            a = x[j] - mean
            if (j + 1) * CHUNK > DIM:
                a = tl.where(j * CHUNK + column < DIM, a, 0.0)
            square += tl.sum(a * a, 1)
            centred = centred + (a,)
        root = tl.rsqrt(square / DIM + EPS)[:, None]
        x = ()
        for j in tl.static_range(CHUNKS):
            n = centred[j] * root * scale[j] + shift[j]
            if n_out is not None:
                _store(n_out + pixel * WIDTH, j * CHUNK + column, real, n, WIDTH, CHUNK)
            x = x + (n,)
    if next_weight is not None:
        n = ()
        for j in tl.static_range(CHUNKS):
            n = n + (x[j].to(dtype),)
        row = tl.arange(0, CHUNK)[:, None]
        for o in tl.range(0, OUT, CHUNK, num_stages=STAGES):
            y = tl.zeros((BM, CHUNK), tl.float32)
            for j in tl.static_range(CHUNKS):
                w = tl.load(next_weight + (j * CHUNK + row) * OUT_PADDED + o + column)
                y = tl.dot(n[j], w, y, input_precision=PRECISION)
            y = gelu(y + tl.load(next_bias + o + column))
            _store(y_out + pixel * OUT, o + column, real, y, OUT, CHUNK)


@triton.jit
def fork_kernel(
    source, residual, weight, bias, side_weight, side_bias, x_out, side_out, sums, pixels,
    WIDTH: tl.constexpr, DIM: tl.constexpr, SIDE: tl.constexpr, BM: tl.constexpr, CHUNK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.gpu.pointwise.fork`; contiguous maps, at most CHUNK channels DIM and SIDE. Grid: (ceil(pixels / BM), B).

    Tensors and constants:
        source: (B, pixels, WIDTH).
        residual, x_out: (B, pixels, DIM rounded up to a multiple of 8).
        weight, side_weight: (WIDTH, DIM) and (WIDTH, SIDE), padded to multiples of CHUNK by zeros.
        bias, side_bias: (DIM) and (SIDE), float32, likewise.
        side_out: (B, pixels, SIDE rounded up to a multiple of 8).
        sums: (B, tiles, SIDE), float32, the sum of each tile of the side matmul.
        pixels: of one image.
        BM: pixels of a tile.
        CHUNK: channels that are worked on at a time.
    """
    DIM_WIDTH: tl.constexpr = (DIM + 7) // 8 * 8
    SIDE_WIDTH: tl.constexpr = (SIDE + 7) // 8 * 8
    SIDE_PIECE: tl.constexpr = _piece(SIDE, CHUNK)
    image = tl.program_id(1).to(tl.int64)
    place = tl.program_id(0) * BM + tl.arange(0, BM)[:, None]
    real = place < pixels
    pixel = image * pixels + place
    channel, side_channel = tl.arange(0, CHUNK)[None, :], tl.arange(0, SIDE_PIECE)[None, :]

    a, w, side_w = (), (), ()
    for k in tl.static_range(0, WIDTH, CHUNK):
        piece = k + tl.arange(0, _piece(WIDTH - k, CHUNK))
        a = a + (_load(source + pixel * WIDTH, piece[None, :], real, WIDTH, _piece(WIDTH - k, CHUNK)),)
        w = w + (tl.load(weight + piece[:, None] * CHUNK + channel),)
        side_w = side_w + (tl.load(side_weight + piece[:, None] * CHUNK + side_channel),)
    r = _load(residual + pixel * DIM_WIDTH, channel, real, DIM_WIDTH, CHUNK)
    b, side_b = tl.load(bias + channel), tl.load(side_bias + side_channel)

    x, side = tl.zeros((BM, CHUNK), tl.float32), tl.zeros((BM, SIDE_PIECE), tl.float32)
    for k in tl.static_range(len(a)):
        x = tl.dot(a[k], w[k], x, input_precision=PRECISION)
        side = tl.dot(a[k], side_w[k], side, input_precision=PRECISION)
    _store(x_out + pixel * DIM_WIDTH, channel, real, x + b + r.to(tl.float32), DIM_WIDTH, CHUNK)
    side += side_b
    _store(side_out + pixel * SIDE_WIDTH, side_channel, real, side, SIDE_WIDTH, SIDE_PIECE)
    total = tl.sum(tl.where(real, side, 0.0), 0)
    tile = image * tl.num_programs(0) + tl.program_id(0)
    c = tl.arange(0, SIDE_PIECE)
    tl.store(sums + tile * SIDE + c, total, mask=c < SIDE)
