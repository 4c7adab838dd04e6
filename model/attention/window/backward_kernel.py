"""Kernels of the backward pass of `window_attention`: three launches, nothing of the size of the scores is stored, no atomics.

With P the attention weights, O the result before the gate, dO its gradient and d = <dO, O> per query:

    dV = P^T dO        dS = P o (dO V^T - d)        dQ = dS K, dpos_q = dS pos_k        dK = dS^T Q, dpos_k = dS^T pos_q

P is made again from the logits and the logarithm of their sum, which the forward pass keeps (FlashAttention, arXiv 2205.14135). One kernel
owns keys and goes through the queries, one owns queries and goes through the keys. Both stay with their tokens for `GROUP` windows, so that
the gradients of the position codes, which all windows share, gather in registers; the groups' sums are added outside, always in
the same order. Maps are read and written where they lie, as in the forward kernel; what mirrored tokens of incomplete windows get
goes into a map of all tokens, which is folded back outside.
"""

import triton
import triton.language as tl

from flashrib.model.attention.window.kernel import LOG2E, _load, _pixels, _queries, _real


@triton.jit
def _place(window, H, W, WH: tl.constexpr, WW: tl.constexpr, SHIFT_H: tl.constexpr, SHIFT_W: tl.constexpr):
    """Where a window lies, as `_pixels` wants it, and the index of its picture's first pixel."""
    rows, columns = tl.cdiv(H, WH), tl.cdiv(W, WW)
    start_x = window % columns * WW + SHIFT_W
    window = window // columns
    start_y = window % rows * WH + SHIFT_H
    return (start_y, start_x, H, W, rows * WH, columns * WW), (window // rows).to(tl.int64) * H * W


@triton.jit
def _tokens(first, WW: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr):
    """Rows and columns (BLOCK,) of the tokens first..first+BLOCK-1, and which of them exist."""
    token = first + tl.arange(0, BLOCK)
    inside = token < N
    token = tl.minimum(token, N - 1)
    y = token // WW
    return y, token - y * WW, inside


@triton.jit
def _block_of_queries(
    block, place, WH: tl.constexpr, WW: tl.constexpr, SHIFT_H: tl.constexpr, SHIFT_W: tl.constexpr, BM: tl.constexpr, PADDED: tl.constexpr
):  # fmt: skip
    """Rows and columns (BM,) of a block of queries, pixels of the map only, and which of them exist."""
    if PADDED:
        start_y, start_x, H, W, padded_y, padded_x = place
        height, before_y, jump_y = _real(start_y, H, padded_y, WH, SHIFT_H)
        width, before_x, jump_x = _real(start_x, W, padded_x, WW, SHIFT_W)
        return _queries(block, (height, width, before_y, before_x, jump_y, jump_x), WH, SHIFT_H, SHIFT_W, BM)
    return _tokens(block * BM, WW, WH * WW, BM)


@triton.jit
def _rows(pointers, inside, channel, WIDTH: tl.constexpr, FULL: tl.constexpr, MASKED: tl.constexpr):
    """Load (rows, FULL), zero beyond channel WIDTH and in rows that do not exist."""
    if MASKED:
        return tl.load(pointers, mask=inside[:, None] & (channel < WIDTH), other=0.0)
    return _load(pointers, channel, WIDTH, FULL)


@triton.jit(do_not_specialize=["count"])
def prepare_kernel(
    grad, out, gate, gate_bias, value_bias, count, scaled, d_gate, delta,
    HEADS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BP: tl.constexpr,
):  # fmt: skip
    """What both other kernels want first. Grid: (ceil(H*W / BP), HEADS, B).

    Arguments, by name:
        grad, out: (B, H, W, HEADS*D), gradient and result of the operator.
        gate: None, or (B, H, W, HEADS*D); gate_bias: None, or (HEADS*D), float32; value_bias likewise, of v.
        count: H*W.
        scaled: with a gate, gets the gradient in front of it, (B, H, W, HEADS*D).
        d_gate: with a gate, gets its gradient.
        delta: (B, HEADS, H, W), float32, gets <gradient, result> in front of the gate, without the bias of v.
    """
    head, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    pixel = tl.program_id(0) * BP + tl.arange(0, BP)
    channel = tl.arange(0, DP)[None, :]
    inside = (pixel < count)[:, None] & (channel < D)
    place = (image * count + pixel)[:, None] * (HEADS * D) + head * D + channel
    dy = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(out + place, mask=inside, other=0.0).to(tl.float32)
    total = tl.sum(dy * y, 1)
    if gate is not None:
        logit = tl.load(gate + place, mask=inside, other=0.0).to(tl.float32)
        if gate_bias is not None:
            logit += _load(gate_bias + head * D + channel, channel, D, DP)
        sigmoid = 1.0 / (1.0 + tl.exp2(-logit * LOG2E))
        tl.store(d_gate + place, (dy * y * (1.0 - sigmoid)).to(d_gate.dtype.element_ty), mask=inside)
        dy = (dy * sigmoid).to(scaled.dtype.element_ty)
        tl.store(scaled + place, dy, mask=inside)
        dy = dy.to(tl.float32)
    if value_bias is not None:
        total -= tl.sum(dy * _load(value_bias + head * D + channel, channel, D, DP), 1)
    tl.store(delta + (image * HEADS + head) * count + pixel, total, mask=pixel < count)


@triton.jit(do_not_specialize=["H", "W", "windows"])
def keys_kernel(
    qkv, pos_q, pos_k, grad, lse, delta, query_bias, H, W, windows, d_qkv, d_mirrored, d_codes,
    HEADS: tl.constexpr, D: tl.constexpr, R: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr,
    SHIFT_H: tl.constexpr, SHIFT_W: tl.constexpr, DP: tl.constexpr, RP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    STAGES: tl.constexpr, TINY: tl.constexpr, SHARED: tl.constexpr, PADDED: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of k, v and pos_k. Grid: ceil(windows / GROUP) * HEADS * ceil(WH*WW / BN), keys fastest.

    Arguments, by name, beside those of `window_attention_kernel`:
        grad: (B, H, W, HEADS*D), gradient in front of the gate.
        lse, delta: (B, HEADS, H, W), float32.
        query_bias: None, or (HEADS*D), float32, what q lacks.
        windows: windows of the batch.
        d_qkv: (B, H, W, 3*HEADS*D), where not PADDED its last two thirds are written.
        d_mirrored: where PADDED, (B, padded H, padded W, 2*HEADS*D), float32: gradients of k and v of every token.
        d_codes: (groups, HEADS, WH*WW, R), float32: a sum over the windows of each group.
        BM, BN: queries of a step, keys of a program.
        PADDED: windows are padded by reflection at the bottom or at the right.
        GROUP: windows that a program goes through.
    """
    N: tl.constexpr = WH * WW
    C: tl.constexpr = HEADS * D
    BLOCKS: tl.constexpr = (N + BN - 1) // BN
    TAIL: tl.constexpr = N % BN != 0
    MASKED: tl.constexpr = PADDED or N % BM != 0
    block, group = tl.program_id(0) % BLOCKS, tl.program_id(0) // BLOCKS
    head, group = group % HEADS, group // HEADS
    channel, code = tl.arange(0, DP)[None, :], tl.arange(0, RP)[None, :]
    y, x, inside = _tokens(block * BN, WW, N, BN)
    codes = (y * WW + x)[:, None] * R + code
    codes_k = _rows((pos_k if SHARED else pos_k + head * (N * R)) + codes, inside, code, R, RP, TAIL)
    d_codes_k = tl.zeros((BN, RP), tl.float32)
    for window in range(group * GROUP, tl.minimum((group + 1) * GROUP, windows)):
        place, image = _place(window, H, W, WH, WW, SHIFT_H, SHIFT_W)
        pixel = _pixels(y, x, place, SHIFT_H, SHIFT_W, TINY)[:, None]
        map_q = qkv + image * (3 * C) + head * D
        k = _rows(map_q + C + pixel * (3 * C) + channel, inside, channel, D, DP, TAIL)
        v = _rows(map_q + 2 * C + pixel * (3 * C) + channel, inside, channel, D, DP, TAIL)
        sums = image * HEADS + head * (H * W)
        d_k = tl.zeros((BN, DP), tl.float32)
        d_v = tl.zeros((BN, DP), tl.float32)
        count = N
        if PADDED:
            count = _real(place[0], H, place[4], WH, SHIFT_H)[0] * _real(place[1], W, place[5], WW, SHIFT_W)[0]
        for step in tl.range(0, tl.cdiv(count, BM), num_stages=STAGES):
            row, column, real = _block_of_queries(step, place, WH, WW, SHIFT_H, SHIFT_W, BM, PADDED)
            at = _pixels(row, column, place, SHIFT_H, SHIFT_W, TINY)
            q = _rows(map_q + at[:, None] * (3 * C) + channel, real, channel, D, DP, MASKED)
            if query_bias is not None:
                q = (q.to(tl.float32) + _load(query_bias + head * D + channel, channel, D, DP)).to(q.dtype)
            codes_q = _rows(pos_q + head * (N * R) + (row * WW + column)[:, None] * R + code, real, code, R, RP, MASKED)
            d_out = _rows(grad + image * C + head * D + at[:, None] * C + channel, real, channel, D, DP, MASKED)
            if MASKED:
                total = tl.load(lse + sums + at, mask=real, other=float("inf"))  # weight 0
                own = tl.load(delta + sums + at, mask=real, other=0.0)
            else:
                total, own = tl.load(lse + sums + at), tl.load(delta + sums + at)
            s = tl.dot(k, q.T, input_precision=PRECISION)
            s = tl.dot(codes_k, codes_q.T, s, input_precision=PRECISION)
            p = tl.exp2(s * LOG2E - total[None, :])
            d_v = tl.dot(p.to(v.dtype), d_out, d_v, input_precision=PRECISION)
            d_p = tl.dot(v, d_out.T, input_precision=PRECISION)
            d_s = (p * (d_p - own[None, :])).to(k.dtype)
            d_k = tl.dot(d_s, q, d_k, input_precision=PRECISION)
            d_codes_k = tl.dot(d_s, codes_q, d_codes_k, input_precision=PRECISION)
        wanted = inside[:, None] & (channel < D)
        if PADDED:
            start_y, start_x, _, _, padded_y, padded_x = place
            at_y, at_x = start_y + y, start_x + x  # of the padded feature map, before the shift
            at_y = tl.where(at_y >= padded_y, at_y - padded_y, at_y)
            at_x = tl.where(at_x >= padded_x, at_x - padded_x, at_x)
            token = (image // (H * W) * padded_y + at_y) * padded_x + at_x
            target = d_mirrored + token[:, None] * (2 * C) + head * D + channel
            tl.store(target, d_k, mask=wanted)
            tl.store(target + C, d_v, mask=wanted)
        else:
            target = d_qkv + (image + pixel) * (3 * C) + head * D + channel
            tl.store(target + C, d_k.to(d_qkv.dtype.element_ty), mask=wanted)
            tl.store(target + 2 * C, d_v.to(d_qkv.dtype.element_ty), mask=wanted)
    d_codes += (group * HEADS + head).to(tl.int64) * (N * R)
    tl.store(d_codes + codes, d_codes_k, mask=inside[:, None] & (code < R))


@triton.jit(do_not_specialize=["H", "W", "windows"])
def queries_kernel(
    qkv, pos_q, pos_k, grad, lse, delta, query_bias, H, W, windows, d_qkv, d_codes,
    HEADS: tl.constexpr, D: tl.constexpr, R: tl.constexpr, WH: tl.constexpr, WW: tl.constexpr,
    SHIFT_H: tl.constexpr, SHIFT_W: tl.constexpr, DP: tl.constexpr, RP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    STAGES: tl.constexpr, TINY: tl.constexpr, SHARED: tl.constexpr, PADDED: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of q and pos_q. Grid: ceil(windows / GROUP) * HEADS * ceil(WH*WW / BM), queries fastest; GROUP is 1 where PADDED.

    Arguments as in `keys_kernel`; the first third of d_qkv is written; d_codes must hold zeros where PADDED; BM: queries of a
    program, BN: keys of a step.
    """
    N: tl.constexpr = WH * WW
    C: tl.constexpr = HEADS * D
    BLOCKS: tl.constexpr = (N + BM - 1) // BM
    TAIL: tl.constexpr = N % BN != 0
    MASKED: tl.constexpr = PADDED or N % BM != 0
    block, group = tl.program_id(0) % BLOCKS, tl.program_id(0) // BLOCKS
    head, group = group % HEADS, group // HEADS
    channel, code = tl.arange(0, DP)[None, :], tl.arange(0, RP)[None, :]
    codes_k = pos_k if SHARED else pos_k + head * (N * R)
    place, image = _place(group * GROUP, H, W, WH, WW, SHIFT_H, SHIFT_W)
    if PADDED:
        count = _real(place[0], H, place[4], WH, SHIFT_H)[0] * _real(place[1], W, place[5], WW, SHIFT_W)[0]
        if block * BM >= count:
            return
    # without mirrored tokens, queries are the same tokens in all windows; otherwise there is one window
    y, x, real = _block_of_queries(block, place, WH, WW, SHIFT_H, SHIFT_W, BM, PADDED)
    codes = (y * WW + x)[:, None] * R + code
    codes_q = _rows(pos_q + head * (N * R) + codes, real, code, R, RP, MASKED)
    d_codes_q = tl.zeros((BM, RP), tl.float32)
    for window in range(group * GROUP, tl.minimum((group + 1) * GROUP, windows)):
        place, image = _place(window, H, W, WH, WW, SHIFT_H, SHIFT_W)
        pixel = _pixels(y, x, place, SHIFT_H, SHIFT_W, TINY)
        map_k = qkv + image * (3 * C) + C + head * D
        sums = image * HEADS + head * (H * W)
        q = _rows(map_k - C + pixel[:, None] * (3 * C) + channel, real, channel, D, DP, MASKED)
        if query_bias is not None:
            q = (q.to(tl.float32) + _load(query_bias + head * D + channel, channel, D, DP)).to(q.dtype)
        d_out = _rows(grad + image * C + head * D + pixel[:, None] * C + channel, real, channel, D, DP, MASKED)
        total = tl.load(lse + sums + pixel, mask=real, other=float("inf"))
        own = tl.load(delta + sums + pixel, mask=real, other=0.0)
        d_q = tl.zeros((BM, DP), tl.float32)
        for first in tl.range(0, N, BN, num_stages=STAGES):
            row, column, inside = _tokens(first, WW, N, BN)
            at = _pixels(row, column, place, SHIFT_H, SHIFT_W, TINY)[:, None]
            k = _rows(map_k + at * (3 * C) + channel, inside, channel, D, DP, TAIL)
            v = _rows(map_k + C + at * (3 * C) + channel, inside, channel, D, DP, TAIL)
            key_codes = _rows(codes_k + (row * WW + column)[:, None] * R + code, inside, code, R, RP, TAIL)
            s = tl.dot(q, k.T, input_precision=PRECISION)
            s = tl.dot(codes_q, key_codes.T, s, input_precision=PRECISION)
            p = tl.exp2(s * LOG2E - total[:, None])
            if TAIL:  # a logit of 0 may be far above all others
                p = tl.where(inside[None, :], p, 0.0)
            d_p = tl.dot(d_out, v.T, input_precision=PRECISION)
            d_s = (p * (d_p - own[:, None])).to(k.dtype)
            d_q = tl.dot(d_s, k, d_q, input_precision=PRECISION)
            d_codes_q = tl.dot(d_s, key_codes, d_codes_q, input_precision=PRECISION)
        target = d_qkv + (image + pixel)[:, None] * (3 * C) + head * D + channel
        tl.store(target, d_q.to(d_qkv.dtype.element_ty), mask=real[:, None] & (channel < D))
    d_codes += (group * HEADS + head).to(tl.int64) * (N * R)
    tl.store(d_codes + codes, d_codes_q, mask=real[:, None] & (code < R))
