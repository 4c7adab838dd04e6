"""The fused kernel of `window_attention`: one Triton source for PyTorch on a GPU, for the TensorRT plugin and for the tests.

One program computes `BM` queries of one head of one window. It reads q, k and v straight out of the qkv map: padding by reflection
and the cyclic shift are arithmetic on addresses, nothing padded or cut into windows is ever stored, and tokens that only pad
a window are never queries. Scores are two dot products (content and position) in one accumulator; v keeps its own width.

Softmax has two ways. The first subtracts from all logits of a query one fixed reference instead of a running maximum: the largest
logit among the keys of one block next to it, which comes first, plus 8 (base 2). So the largest weight is 2^-8 or more, exact enough in
float16, and a logit may lie almost 24 (base 2) above that one before a weight leaves float16. Nothing is rescaled, and the products of
one block of keys overlap with the exponentials of the next. Where a weight does leave that range, so does their sum: the program sees
that at its end and repeats its work with the online softmax (Milakov and Gimelshein, arXiv 1805.02867), so the result is right in any case.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
HEADROOM = tl.constexpr(8.0)  # log2 of the distance between the reference and weight 1, see above


@triton.jit
def _source(i, start, length, padded, SHIFT: tl.constexpr, TINY: tl.constexpr):
    """Row (or column) of the map behind coordinate `i` of the window that starts at `start` of the padded, shifted map."""
    p = start + i
    if SHIFT != 0:
        p = tl.where(p >= padded, p - padded, p)
    if TINY:  # sides of at most half a window are mirrored more than once
        period = tl.maximum(2 * (length - 1), 1)
        p = p % period
        return tl.where(length > 1, tl.minimum(p, period - p), 0)
    return tl.minimum(p, 2 * (length - 1) - p)


@triton.jit
def _real(start, length, padded, SIDE: tl.constexpr, SHIFT: tl.constexpr):
    """Which coordinates of a window are pixels of the map: `count` in all, the first `before` of them, the others `jump` further."""
    before = tl.minimum(tl.maximum(length - start, 0), SIDE)
    if SHIFT == 0:
        return before, before, 0
    wrap = tl.minimum(tl.maximum(padded - start, 0), SIDE)  # from here on the shift comes round to the map's first row
    return before + tl.minimum(SIDE - wrap, length), before, wrap - before


@triton.jit
def _pixels(y, x, place, SHIFT_H: tl.constexpr, SHIFT_W: tl.constexpr, TINY: tl.constexpr):
    """Index within its picture of the pixel behind row y and column x of the window; int64, since maps may have more than 2^31 values."""
    start_y, start_x, H, W, padded_y, padded_x = place
    row = _source(y, start_y, H, padded_y, SHIFT_H, TINY)
    return (row * W + _source(x, start_x, W, padded_x, SHIFT_W, TINY)).to(tl.int64)


@triton.jit
def _queries(block, area, WH: tl.constexpr, SHIFT_H: tl.constexpr, SHIFT_W: tl.constexpr, BM: tl.constexpr):
    """Rows and columns (BM,) of the window that the queries of a block are at, real pixels only, and which of them exist."""
    height, width, before_y, before_x, jump_y, jump_x = area
    m = block * BM + tl.arange(0, BM)
    # m / width, rounded down: in float32 the half keeps it off the integers, exact for windows of fewer than 2^21 tokens
    y = ((m.to(tl.float32) + 0.5) * (1.0 / width)).to(tl.int32)
    x = m - y * width
    if SHIFT_H != 0:
        y += tl.where(y >= before_y, jump_y, 0)
    if SHIFT_W != 0:
        x += tl.where(x >= before_x, jump_x, 0)
    return tl.minimum(y, WH - 1), x, m < height * width


@triton.jit
def _scores(
    q, codes_q, k_map, codes_k, place, first,
    D: tl.constexpr, R: tl.constexpr, DP: tl.constexpr, RP: tl.constexpr, STRIDE: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr,
    SHIFT_H: tl.constexpr, SHIFT_W: tl.constexpr, BN: tl.constexpr, TINY: tl.constexpr, TAIL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits (BM, BN) of the keys first..first+BN-1, and the pointers to these keys (BN, DP)."""
    token = first + tl.arange(0, BN)
    channel, code = tl.arange(0, DP)[None, :], tl.arange(0, RP)[None, :]
    y = token // WW
    x = token - y * WW
    inside = (token < WH * WW)[:, None]
    if TAIL:
        y = tl.minimum(y, WH - 1)
    keys = k_map + _pixels(y, x, place, SHIFT_H, SHIFT_W, TINY)[:, None] * STRIDE + channel
    codes = codes_k + token[:, None] * R + code
    if TAIL:
        k = tl.load(keys, mask=inside & (channel < D), other=0.0)
        pk = tl.load(codes, mask=inside & (code < R), other=0.0)
    else:
        k = _load(keys, channel, D, DP)
        pk = _load(codes, code, R, RP)
    s = tl.dot(q, k.T, input_precision=PRECISION)
    s = tl.dot(codes_q, pk.T, s, input_precision=PRECISION)
    if TAIL:
        s = tl.where((token < WH * WW)[None, :], s, -float("inf"))
    return s, keys


@triton.jit
def _load(pointers, channel, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Load (rows, PADDED), zero beyond channel WIDTH."""
    if WIDTH == PADDED:
        return tl.load(pointers)
    return tl.load(pointers, mask=channel < WIDTH, other=0.0)


@triton.jit
def _values(
    pointers, channel, first, N: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr, TAIL: tl.constexpr
):  # fmt: skip
    """v (BN, DP) of the keys first..first+BN-1."""
    if TAIL:
        return tl.load(pointers, mask=(first + tl.arange(0, BN) < N)[:, None] & (channel < D), other=0.0)
    return _load(pointers, channel, D, DP)


@triton.jit(do_not_specialize=["H", "W"])  # or every other size of a picture would be compiled again
def window_attention_kernel(
    qkv, pos_q, pos_k, gate, qkv_bias, gate_bias, H, W, out, lse,
    HEADS: tl.constexpr, D: tl.constexpr, R: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr,
    SHIFT_H: tl.constexpr, SHIFT_W: tl.constexpr, DP: tl.constexpr, RP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    STAGES: tl.constexpr, REPEAT_STAGES: tl.constexpr, TINY: tl.constexpr, SHARED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.attention.window.window_attention`; contiguous maps. Grid: B * windows * HEADS * ceil(WH*WW / BM).

    Arguments, by name:
        qkv: (B, H, W, 3*HEADS*D).
        pos_q, pos_k: (HEADS, WH*WW, R); pos_k (1, WH*WW, R) where all heads share it, SHARED.
        gate: None, or (B, H, W, HEADS*D): the result is multiplied by its sigmoid.
        qkv_bias: None, or (3*HEADS*D), float32, what q and v lack; that of k changes no result and is not read.
        gate_bias: None, or (HEADS*D), float32, what the gate lacks.
        out: (B, H, W, HEADS*D).
        lse: None, or (B, HEADS, H, W), float32: gets log2 of the sum of 2^(logit * log2(e)), for the backward pass.
        DP, RP: powers of two >= 16 that D and R are rounded up to.
        BM, BN: queries and keys of a block, powers of two >= 16.
        STAGES: blocks of keys in flight.
        REPEAT_STAGES: the same where a program repeats its work.
        TINY: H or W is so small that a window needs more than one reflection.
        PRECISION: of float32 products, "ieee", "tf32" or "tf32x3"; no meaning for 16 bit.
    """
    N: tl.constexpr = WH * WW
    C: tl.constexpr = HEADS * D
    WHOLE: tl.constexpr = N // BN * BN
    LIMIT: tl.constexpr = (
        6e4 if qkv.dtype.element_ty == tl.float16 else 1e30
    )  # no weight beyond it, so none leaves the type
    rows, columns = tl.cdiv(H, WH), tl.cdiv(W, WW)
    BLOCKS: tl.constexpr = (N + BM - 1) // BM
    # heads side by side: their channels are neighbours in memory
    block, window = tl.program_id(0) % BLOCKS, tl.program_id(0) // BLOCKS
    head, window = window % HEADS, window // HEADS
    start_x = window % columns * WW + SHIFT_W
    window = window // columns
    start_y = window % rows * WH + SHIFT_H
    image = (window // rows).to(tl.int64) * H * W
    place = (start_y, start_x, H, W, rows * WH, columns * WW)

    height, before_y, jump_y = _real(start_y, H, rows * WH, WH, SHIFT_H)
    width, before_x, jump_x = _real(start_x, W, columns * WW, WW, SHIFT_W)
    area = (height, width, before_y, before_x, jump_y, jump_x)
    if block * BM >= height * width:
        return
    y, x, real = _queries(block, area, WH, SHIFT_H, SHIFT_W, BM)
    token = y * WW + x
    channel, code = tl.arange(0, DP)[None, :], tl.arange(0, RP)[None, :]
    q_map = qkv + image * (3 * C) + head * D
    k_map = q_map + C
    codes_k = pos_k if SHARED else pos_k + head * (N * R)
    pixel = _pixels(y, x, place, SHIFT_H, SHIFT_W, TINY)[:, None]
    q = tl.load(q_map + pixel * (3 * C) + channel, mask=real[:, None] & (channel < D), other=0.0)
    if qkv_bias is not None:
        q = (q.to(tl.float32) + _load(qkv_bias + head * D + channel, channel, D, DP)).to(q.dtype)
    codes_q = tl.load(pos_q + head * (N * R) + token[:, None] * R + code, mask=real[:, None] & (code < R), other=0.0)

    # the block of keys around the first query comes first and gives the reference, then all others
    first_y = block * BM // width
    first_x = block * BM - first_y * width
    first_y += tl.where(first_y >= before_y, jump_y, 0)
    first_x += tl.where(first_x >= before_x, jump_x, 0)
    near = tl.minimum((first_y * WW + first_x) // BN * BN, WHOLE - BN)
    reference = tl.zeros((BM,), tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, DP), tl.float32)
    for i in tl.range(0, WHOLE, BN, num_stages=STAGES):
        first = tl.where(i == 0, near, tl.where(i <= near, i - BN, i))
        s, keys = _scores(
            q, codes_q, k_map, codes_k, place, first, D, R, DP, RP, 3 * C, WH, WW, SHIFT_H, SHIFT_W, BN, TINY, False, PRECISION
        )  # fmt: skip
        v = _values(keys + C, channel, first, N, D, DP, BN, False)
        if i == 0:
            reference = tl.max(s, 1) * LOG2E + HEADROOM
        p = tl.exp2(s * LOG2E - reference[:, None])
        total += tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
    if WHOLE < N:
        s, keys = _scores(
            q, codes_q, k_map, codes_k, place, WHOLE, D, R, DP, RP, 3 * C, WH, WW, SHIFT_H, SHIFT_W, BN, TINY, True, PRECISION
        )  # fmt: skip
        v = _values(keys + C, channel, WHOLE, N, D, DP, BN, True)
        if WHOLE == 0:
            reference = tl.max(s, 1) * LOG2E + HEADROOM
        p = tl.exp2(s * LOG2E - reference[:, None])
        total += tl.sum(p, 1)
        acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)

    complete = tl.min(
        (total < LIMIT).to(tl.int32)
    )  # False for NaN; named, the axis is more than Triton 3.6 takes for sm_100
    if complete == 0:
        acc = tl.zeros((BM, DP), tl.float32)
        total = tl.zeros((BM,), tl.float32)
        highest = tl.full((BM,), -float("inf"), tl.float32)
        for first in tl.range(0, N, BN, num_stages=REPEAT_STAGES):
            s, keys = _scores(
                q, codes_q, k_map, codes_k, place, first, D, R, DP, RP, 3 * C, WH, WW, SHIFT_H, SHIFT_W, BN, TINY, WHOLE < N, PRECISION
            )  # fmt: skip
            v = _values(keys + C, channel, first, N, D, DP, BN, WHOLE < N)
            higher = tl.maximum(highest, tl.max(s, 1) * LOG2E)
            p = tl.exp2(s * LOG2E - higher[:, None])
            decay = tl.exp2(highest - higher)
            total = total * decay + tl.sum(p, 1)
            acc = tl.dot(p.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
            highest = higher
        if lse is not None:
            reference = highest

    acc *= (1.0 / total)[:, None]
    if qkv_bias is not None:
        acc += _load(qkv_bias + 2 * C + head * D + channel, channel, D, DP)
    # Adding 0 hides from the compiler that the addresses are those of before, or it keeps them in registers all the time.
    y, x, real = _queries(block + (complete >> 1), area, WH, SHIFT_H, SHIFT_W, BM)
    results = _pixels(y, x, place, SHIFT_H, SHIFT_W, TINY)[:, None] * C + channel
    inside = real[:, None] & (channel < D)
    start = image * C + head * D
    if gate is not None:
        logit = tl.load(gate + start + results, mask=inside, other=0.0).to(tl.float32)
        if gate_bias is not None:
            logit += _load(gate_bias + head * D + channel, channel, D, DP)
        root = tl.rsqrt(1.0 + tl.exp2(-logit * LOG2E))  # the root of the sigmoid: cheaper than a division
        acc *= root * root
    tl.store(out + start + results, acc.to(out.dtype.element_ty), mask=inside)
    if lse is not None:
        place_lse = image * HEADS + head * (H * W) + _pixels(y, x, place, SHIFT_H, SHIFT_W, TINY)
        tl.store(lse + place_lse, reference + tl.log2(total), mask=real)
