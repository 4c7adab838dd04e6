"""Kernels of the GPU network that see neighbours or the whole picture: convolutions, the taps that a picture makes, pixel shuffle."""

# ruff: noqa: RUF005  (Triton knows sums of tuples and no unpacking)

import triton
import triton.language as tl

from flashrib.model.gpu.pointwise_kernels import gelu


@triton.jit
def _finish(value, centre, target, wanted, FFN: tl.constexpr):
    """Last steps of a pixel of the depthwise convolution."""
    if FFN:
        value = centre + gelu(value)
    tl.store(target, value.to(target.dtype.element_ty), mask=wanted)


@triton.jit
def _rows(
    source, y, in_a, in_b, in_c, in_d, H, W, WIDTH: tl.constexpr, TH: tl.constexpr,
):  # fmt: skip
    """TH + 2 rows of what pairs of pixels see, four tuples of tiles: the pixel before a pair, its two, the one after; zero outside.

    source points to the left pixels of the pairs, in row y, which is the second one here.
    """
    a, b, c, d = (), (), (), ()
    for r in tl.static_range(TH + 2):
        there = (y + r >= 1) & (y + r <= H)
        row = source + (r - 1) * W * WIDTH
        a = a + (tl.load(row - WIDTH, mask=in_a & there, other=0.0),)
        b = b + (tl.load(row, mask=in_b & there, other=0.0),)
        c = c + (tl.load(row + WIDTH, mask=in_c & there, other=0.0),)
        d = d + (tl.load(row + 2 * WIDTH, mask=in_d & there, other=0.0),)
    return a, b, c, d


@triton.jit
def _pair(a, b, c, d, t, bias, r: tl.constexpr, PAIRS: tl.constexpr, CHUNK: tl.constexpr):
    """Convolution at both pixels of the pairs of row r; t are nine taps, the rest as `_rows` has it."""
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
    return left, right


@triton.jit
def depthwise_kernel(
    source, taps, taps_bias, out, H, W, WIDTH: tl.constexpr, FFN: tl.constexpr, TH: tl.constexpr, PAIRS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Depthwise 3x3 convolution, or the source + gelu of it; contiguous maps (B, H, W, WIDTH).

    taps (9, WIDTH) and taps_bias (WIDTH) are float32 and padded to multiples of 64 channels by zeros.
    Grid: B * ceil(H / TH) * ceil(W / (2 * PAIRS)) * ceil(WIDTH / CHUNK).

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
        t = t + (tl.load(taps + tap * PADDED + channel),)
    bias = tl.load(taps_bias + channel)

    a, b, c, d = _rows(source + start + place, y, in_a, in_b, in_c, in_d, H, W, WIDTH, TH)
    for r in tl.static_range(TH):
        left, right = _pair(a, b, c, d, t, bias, r, PAIRS, CHUNK)
        target, wanted = out + start + r * W * WIDTH + place, y + r < H
        _finish(left, b[r + 1].to(tl.float32), target, in_b & wanted, FFN)
        _finish(right, c[r + 1].to(tl.float32), target + WIDTH, in_c & wanted, FFN)


@triton.jit
def gated_kernel(
    source, taps, taps_bias, out, H, W, HALF: tl.constexpr, TH: tl.constexpr, PAIRS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """[a, b] = depthwise 3x3 convolution of maps (B, H, W, 2*HALF), out (B, H, W, HALF) = silu(a) * b; contiguous.

    taps (9, 2*HALF) and taps_bias (2*HALF) are float32. Grid and tiles as in `depthwise_kernel`, with HALF channels. A program keeps a in
    float32 while it reads the rows of b.
    """
    WIDTH: tl.constexpr = 2 * HALF
    columns, rows = tl.cdiv(W, 2 * PAIRS), tl.cdiv(H, TH)
    CHUNKS: tl.constexpr = (HALF + CHUNK - 1) // CHUNK
    tile = tl.program_id(0) // CHUNKS
    x = ((tile % columns * PAIRS + tl.arange(0, PAIRS)) * 2)[:, None]
    tile = tile // columns
    y = tile % rows * TH
    channel = tl.program_id(0) % CHUNKS * CHUNK + tl.arange(0, CHUNK)[None, :]
    known = channel < HALF
    in_b = (x < W) & known
    in_a, in_c, in_d = in_b & (x > 0), in_b & (x < W - 1), in_b & (x < W - 2)
    pixel = ((tile // rows).to(tl.int64) * H + y) * W + x
    left, right = (), ()
    for half in tl.static_range(2):
        at = half * HALF + channel
        t = ()
        for tap in tl.static_range(9):
            t = t + (tl.load(taps + tap * WIDTH + at, mask=known, other=0.0),)
        bias = tl.load(taps_bias + at, mask=known, other=0.0)
        a, b, c, d = _rows(source + pixel * WIDTH + at, y, in_a, in_b, in_c, in_d, H, W, WIDTH, TH)
        for r in tl.static_range(TH):
            one, other = _pair(a, b, c, d, t, bias, r, PAIRS, CHUNK)
            left = left + (one,)
            right = right + (other,)
    for r in tl.static_range(TH):
        target, wanted = out + (pixel + r * W) * HALF + channel, y + r < H
        tl.store(target, (silu(left[r]) * left[TH + r]).to(out.dtype.element_ty), mask=in_b & wanted)
        tl.store(target + HALF, (silu(right[r]) * right[TH + r]).to(out.dtype.element_ty), mask=in_c & wanted)


@triton.jit
def silu(x):
    """x / (1 + exp(-x))."""
    return x / (1.0 + tl.exp2(-x * 1.4426950408889634))


@triton.jit
def _step(
    source, weight, left, y, step, H, W, WIDTH: tl.constexpr, SIDE: tl.constexpr, REACH: tl.constexpr, BK: tl.constexpr, OUT: tl.constexpr,
):  # fmt: skip
    """What a step of `mix_kernel` multiplies: two rows of the source at the same distance above and below, and their weights."""
    HALF: tl.constexpr = SIDE // 2
    CHUNKS: tl.constexpr = (REACH * WIDTH + BK - 1) // BK
    d = step // CHUNKS
    k = step % CHUNKS * BK + tl.arange(0, BK)[None, :]
    x = left - HALF + k // WIDTH
    inside = (x >= 0) & (x < W) & (k < REACH * WIDTH)
    place = source + (k - HALF * WIDTH)
    above = tl.load(place - d * W * WIDTH, mask=inside & (y >= d) & (y < H), other=0.0)
    below = tl.load(place + d * W * WIDTH, mask=inside & (y + d < H) & (d > 0), other=0.0)
    rows = step * BK + tl.arange(0, BK)[:, None]
    return above, below, tl.load(weight + rows * OUT + tl.arange(0, OUT)[None, :])


@triton.jit
def mix_kernel(
    source, weight, taps, out, H, W, WIDTH: tl.constexpr, SIDE: tl.constexpr, PIXELS: tl.constexpr, OUT: tl.constexpr, BM: tl.constexpr,
    BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Convolution of SIDE x SIDE taps, plus a depthwise one of 3x3 taps per image; contiguous maps (B, H, W, WIDTH).

    The weights are symmetric in their rows, so a program adds the rows of the source at distance d above and below, and multiplies once.
    It makes BM groups of PIXELS adjacent pixels: a row of its products holds the channels of the REACH pixels that a group sees, which
    are adjacent in memory, and those of the group. weight (SIDE // 2 + 1, REACH * WIDTH, OUT), banded, see
    `flashrib.model.architectures.esc.gpu.banded`; its second dimension is padded to a multiple of BK by zeros and OUT >= PIXELS * WIDTH.
    taps (B, 9, OUT) are float32. Grid: (ceil(H * ceil(W / PIXELS) / BM), B).
    """
    REACH: tl.constexpr = PIXELS + SIDE - 1
    STEPS: tl.constexpr = (SIDE // 2 + 1) * ((REACH * WIDTH + BK - 1) // BK)
    group = (tl.program_id(0) * BM + tl.arange(0, BM))[:, None]
    image = tl.program_id(1).to(tl.int64)
    columns = tl.cdiv(W, PIXELS)
    y, left = group // columns, group % columns * PIXELS
    start = image * H * W * WIDTH + (y * W + left) * WIDTH
    source += start
    total = tl.zeros((BM, OUT), tl.float32)
    above, below, rows = _step(source, weight, left, y, 0, H, W, WIDTH, SIDE, REACH, BK, OUT)
    # Loads are one step ahead, in registers; the compiler's own pipeline would take them through shared memory.
    for step in tl.range(1, STEPS, num_stages=1):
        now, by = above + below, rows
        above, below, rows = _step(source, weight, left, y, step, H, W, WIDTH, SIDE, REACH, BK, OUT)
        total = tl.dot(now, by, total, input_precision=PRECISION)
    total = tl.dot(above + below, rows, total, input_precision=PRECISION)

    channel = tl.arange(0, OUT)[None, :]
    x = left + channel // WIDTH
    real = (x < W) & (channel < PIXELS * WIDTH)
    taps += image * 9 * OUT + channel % WIDTH
    for i in tl.range(3):
        there = real & (y + i >= 1) & (y + i <= H)
        for j in tl.static_range(3):
            place = source + ((i - 1) * W + j - 1) * WIDTH + channel
            near = tl.load(place, mask=there & (x + j >= 1) & (x + j <= W), other=0.0)
            total += near.to(tl.float32) * tl.load(taps + (3 * i + j) * OUT)
    tl.store(out + start + channel, total.to(out.dtype.element_ty), mask=real & (y < H))


@triton.jit
def taps_kernel(
    sums, squeeze_weight, squeeze_bias, expand_weight, expand_bias, taps, tiles, pixels,
    CHANNELS: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr, P_CHANNELS: tl.constexpr, P_INNER: tl.constexpr, TILES: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.gpu.spatial.taps`; contiguous, float32. Grid: B.

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
    """See `flashrib.model.gpu.spatial.shuffle`; y (B, H, W, WIDTH), all contiguous.

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
