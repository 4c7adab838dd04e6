"""Kernels of the backward pass of `offset_attention`: two launches, memory linear in the tokens, no atomics.

With S = <q, k>, K(q) the keys that the query q sees, L = log of the sum of all weights e^S and e^0, O the result and dO its gradient,

    P_qk = e^(S_qk - L_q) for k in K(q)        r_q = e^-L_q under zero_logit, else 0: the weight of every key that is left out
    O_q = sum over k in K(q) of (P_qk - r_q) v_k  +  r_q * (sum of all v)

and with d_q = <dO_q, O_q> and Q(k) the queries that see the key k

    dS_qk = P_qk (<dO_q, v_k> - d_q) for k in K(q), else 0, since the logit of a key left out is a constant
    dQ_q = sum over k in K(q) of dS_qk k_k
    dK_k = sum over q in Q(k) of dS_qk q_q
    dV_k = sum over q in Q(k) of (P_qk - r_q) dO_q  +  R,        R = sum over all q of r_q dO_q

The class token's query leaves no key out, so its r is 0 here. A patch is seen by the patches that it sees, those at its offsets on both
sides, and by the class token. So one program owns a block of patches and makes all three of their gradients from the same rows of its
neighbours: each pair is computed by the owner of its query and by that of its key. P comes from the logits and L, which the forward
pass keeps (FlashAttention, arXiv 2205.14135). The class token's gradients are sums over all tokens, whose parts, one per program, are
added outside in a fixed order, as are those of R.
"""

import triton
import triton.language as tl

from flashrib.model.attention.fibonacci.kernel import LOG2E, _wide


@triton.jit
def _pairs(q, k, lse, grad, v, delta, exists):
    """P and dS (rows,) of pairs of a query and a key, both 0 where a pair does not exist; q and k, grad and v: (rows or 1, DP)."""
    s = tl.where(exists, tl.sum(q * k, 1) * LOG2E, -float("inf"))
    p = tl.exp2(s - lse)
    return p, p * (tl.sum(grad * v, 1) - delta)


@triton.jit(do_not_specialize=["tokens"])
def prepare_kernel(
    grad, out, lse, tokens, delta, rests,
    HEADS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """What the other kernel wants first. Grid: (ceil(tokens / BM), HEADS, B).

    Arguments, by name:
        grad, out: (B, tokens, HEADS*D), gradient and result of the operator.
        lse: (B, HEADS, tokens), float32, as the forward kernels keep it.
        tokens: N + 1, the class token first.
        delta: (B, HEADS, tokens), float32, gets d = <gradient, result>.
        rests: None, or (ceil(tokens / BM), B, HEADS*D), float32, which gets the parts of R.
        BM: tokens of a program.
    """
    C: tl.constexpr = HEADS * D
    chunk, head, image = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = chunk * BM + tl.arange(0, BM)
    channel = tl.arange(0, DP)[None, :]
    inside = (row < tokens)[:, None] & (channel < D)
    place = image * tokens * C + row[:, None] * C + head * D + channel
    dy = tl.load(grad + place, mask=inside, other=0.0).to(tl.float32)  # (BM, DP)
    y = tl.load(out + place, mask=inside, other=0.0).to(tl.float32)
    sums = (image * HEADS + head) * tokens + row
    tl.store(delta + sums, tl.sum(dy * y, 1), mask=row < tokens)
    if rests is not None:
        r = tl.exp2(-tl.load(lse + sums, mask=row < tokens, other=0.0))
        r = tl.where(row > 0, r, 0.0)
        channel = tl.arange(0, DP)
        part = rests + (chunk * tl.num_programs(2) + image) * C + head * D + channel
        tl.store(part, tl.sum(r[:, None] * dy, 0), mask=channel < D)


@triton.jit(do_not_specialize=["tokens"])
def patches_kernel(
    qkv, offsets, grad, lse, delta, rest, tokens, d_qkv, d_class,
    HEADS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, M: tl.constexpr, MP: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Gradients of the patches, and parts of those of the class token. Grid: B * HEADS * ceil((tokens - 1) / BM), heads fastest.

    Arguments, by name:
        qkv: (B, tokens, 3*HEADS*D), of fewer than 2^31 values per picture.
        offsets: (HEADS, M) int32, ascending, filled up with numbers of at least tokens - 1.
        grad: (B, tokens, HEADS*D).
        lse, delta: (B, HEADS, tokens), float32.
        rest: R under zero_logit, (B, HEADS*D), float32; else None.
        tokens: N + 1, the class token first.
        d_qkv: (B, tokens, 3*HEADS*D), of which the rows of patches are written.
        d_class: (ceil((tokens - 1) / BM), B, 3*HEADS*D), float32.
        DP, MP: powers of two that D and M are padded to.
        BM: patches of a program, a power of two.
    """
    C: tl.constexpr = HEADS * D
    STRIDE: tl.constexpr = 3 * C
    FULL: tl.constexpr = DP == D
    chunks = tl.cdiv(tokens - 1, BM)
    head, chunk = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    image, chunk = (chunk // chunks).to(tl.int64), chunk % chunks
    batch = tl.num_programs(0) // (HEADS * chunks)
    channel = tl.arange(0, DP)[None, :]
    end = tokens - 1
    row = 1 + chunk * BM + tl.arange(0, BM)
    inside = row <= end
    at = tl.minimum(row, end)
    base = qkv + image * tokens * STRIDE + head * D + channel
    grads = grad + image * tokens * C + head * D + channel
    lse += (image * HEADS + head) * tokens
    delta += (image * HEADS + head) * tokens

    place = base + (at * STRIDE)[:, None]
    q = _wide(place, channel, D, FULL)  # (BM, DP)
    k = _wide(place + C, channel, D, FULL)
    v = _wide(place + 2 * C, channel, D, FULL)
    d_o = _wide(grads + (at * C)[:, None], channel, D, FULL)
    own_lse, own_delta = tl.load(lse + at), tl.load(delta + at)
    d_q = tl.zeros((BM, DP), tl.float32)
    d_k = tl.zeros((BM, DP), tl.float32)
    d_v = tl.zeros((BM, DP), tl.float32)
    slot = tl.arange(0, MP)
    listed = tl.load(offsets + head * M + slot, mask=slot < M, other=2147483647)
    count = tl.sum((listed < end).to(tl.int32), 0)
    for j in tl.range(0, count):
        o = tl.load(offsets + head * M + j)
        for side in tl.static_range(2):
            if side == 0:
                other = row + o
                exists = other <= end
            else:
                other = row - o
                exists = (other >= 1) & (o > 0)
            other = tl.minimum(tl.maximum(other, 1), end)
            place = base + (other * STRIDE)[:, None]
            other_q = _wide(place, channel, D, FULL)
            other_k = _wide(place + C, channel, D, FULL)
            other_v = _wide(place + 2 * C, channel, D, FULL)
            other_d_o = _wide(grads + (other * C)[:, None], channel, D, FULL)
            other_lse = tl.load(lse + other)
            _, d_s = _pairs(q, other_k, own_lse, d_o, other_v, own_delta, exists)
            d_q += d_s[:, None] * other_k
            p, d_s = _pairs(other_q, k, other_lse, other_d_o, v, tl.load(delta + other), exists)
            if rest is not None:
                p -= tl.where(exists, tl.exp2(-other_lse), 0.0)
            d_k += d_s[:, None] * other_q
            d_v += p[:, None] * other_d_o

    first_q = _wide(base, channel, D, FULL)  # of the class token, (1, DP)
    first_k = _wide(base + C, channel, D, FULL)
    first_v = _wide(base + 2 * C, channel, D, FULL)
    first_d_o = _wide(grads, channel, D, FULL)
    first_lse, first_delta = tl.load(lse), tl.load(delta)
    # as a key of the patches
    p, d_s = _pairs(q, first_k, own_lse, d_o, first_v, own_delta, inside)
    d_q += d_s[:, None] * first_k
    part_k, part_v = tl.sum(d_s[:, None] * q, 0), tl.sum(p[:, None] * d_o, 0)
    # as a query that sees the patches
    p, d_s = _pairs(first_q, k, first_lse, first_d_o, v, first_delta, inside)
    d_k += d_s[:, None] * first_q
    d_v += p[:, None] * first_d_o
    part_q = tl.sum(d_s[:, None] * k, 0)
    # as a query that sees itself, in one program
    p, d_s = _pairs(first_q, first_k, first_lse, first_d_o, first_v, first_delta, chunk == 0)
    part_q += tl.sum(d_s[:, None] * first_k, 0)
    part_k += tl.sum(d_s[:, None] * first_q, 0)
    part_v += tl.sum(p[:, None] * first_d_o, 0)
    if rest is not None:
        d_v += _wide(rest + image * C + head * D + channel, channel, D, FULL)

    wanted = inside[:, None] & (channel < D)
    target = d_qkv + image * tokens * STRIDE + head * D + (row * STRIDE)[:, None] + channel
    tl.store(target, d_q.to(d_qkv.dtype.element_ty), mask=wanted)
    tl.store(target + C, d_k.to(d_qkv.dtype.element_ty), mask=wanted)
    tl.store(target + 2 * C, d_v.to(d_qkv.dtype.element_ty), mask=wanted)
    channel = tl.arange(0, DP)
    part = d_class + (chunk * batch + image) * STRIDE + head * D + channel
    tl.store(part, part_q, mask=channel < D)
    tl.store(part + C, part_k, mask=channel < D)
    tl.store(part + 2 * C, part_v, mask=channel < D)
