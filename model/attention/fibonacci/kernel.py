"""The fused kernel of `offset_attention`: one Triton source for PyTorch on a GPU, for the TensorRT plugin and for the tests.

A program takes `span` consecutive patch queries of one head, `BM` at a time. For every offset it loads the rows of k and v at +o and at
-o: blocks of consecutive rows, so loads are whole lines, and scores are products of vectors. Going along the diagonals in order, a
program finds many rows in the L1 cache, since a row is met again at every offset. Rows of keys are not masked: beyond an end the last
row is read and gets weight 0. Softmax is the online one (arXiv 1805.02867), both keys of an offset at a time, statistics in float32.

The class token's query sees all keys. Where a program has a whole head, it computes that row itself; else it comes in parts, the
maximum, the sum, the weighted values and the plain sum of v, of the same programs or of a launch of its own, which multiplies
matrices, and `merge_kernel` puts the parts together.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
HEADROOM = tl.constexpr(
    1.0
)  # log2 between the reference of a softmax and its largest weight: two weighted values add up within 16 bit
LOWEST = tl.constexpr(-1e30)  # of a maximum without keys: finite, so that differences stay numbers


@triton.jit
def _load(pointers, channel, D: tl.constexpr, FULL: tl.constexpr):
    """Load (rows, width) as it is stored, zero beyond channel D unless all channels are FULL."""
    if FULL:
        return tl.load(pointers)
    return tl.load(pointers, mask=channel < D, other=0.0)


@triton.jit
def _wide(pointers, channel, D: tl.constexpr, FULL: tl.constexpr):
    """The same in float32."""
    return _load(pointers, channel, D, FULL).to(tl.float32)


@triton.jit
def _class_part(
    base, first, last, STRIDE: tl.constexpr, C: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr, STAGES: tl.constexpr
):  # fmt: skip
    """The class token's attention to the tokens first..last-1: maximum, sum, weighted values (DP,), and the sum of v (DP,).

    As products of matrices of 16 rows: row 0 is the class token's query; the others are zero, so all their weights are 1.
    """
    channel = tl.arange(0, DP)[None, :]
    line = tl.arange(0, 16)
    q = tl.load(base + channel + line[:, None] * 0, mask=(line[:, None] == 0) & (channel < D), other=0.0)  # (16, DP)
    highest = tl.full((16,), LOWEST, tl.float32)
    total = tl.zeros((16,), tl.float32)
    acc = tl.zeros((16, DP), tl.float32)
    for start in tl.range(first, last, BN, num_stages=STAGES):
        row = start + tl.arange(0, BN)
        keys = base + C + (tl.minimum(row, last - 1) * STRIDE)[:, None] + channel
        k = _load(keys, channel, D, DP == D)
        v = _load(keys + C, channel, D, DP == D)
        s = tl.dot(q, k.T, input_precision="tf32x3") * LOG2E
        s = tl.where((row < last)[None, :], s, -float("inf"))
        higher = tl.maximum(highest, tl.max(s, 1))
        decay = tl.exp2(highest - higher)
        weight = tl.exp2(s - higher[:, None])
        total = total * decay + tl.sum(weight, 1)
        acc = tl.dot(weight.to(v.dtype), v, acc * decay[:, None], input_precision="tf32x3")
        highest = higher
    top = tl.sum(tl.where(line == 0, highest, 0.0), 0)
    own = tl.sum(tl.where(line == 0, total, 0.0), 0)
    return (
        top,
        own,
        tl.sum(tl.where(line[:, None] == 0, acc, 0.0), 0),
        tl.sum(tl.where(line[:, None] == 1, acc, 0.0), 0),
    )


@triton.jit
def _class_rows(
    base, first, last, STRIDE: tl.constexpr, C: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, SUM: tl.constexpr
):  # fmt: skip
    """The same as products of vectors, without shared memory for blocks, for programs that go on with patch queries; sum of v with SUM."""
    channel = tl.arange(0, DP)[None, :]
    q = _wide(base + channel, channel, D, DP == D) * LOG2E  # (1, DP)
    highest = tl.full((BM,), LOWEST, tl.float32)
    total = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, DP), tl.float32)
    plain = tl.zeros((BM, DP), tl.float32)
    for start in tl.range(first, last, BM):
        row = start + tl.arange(0, BM)
        inside = row < last
        keys = base + C + (tl.minimum(row, last - 1) * STRIDE)[:, None] + channel
        k = _wide(keys, channel, D, DP == D)
        v = _wide(keys + C, channel, D, DP == D)
        s = tl.where(inside, tl.sum(q * k, 1), -float("inf"))
        higher = tl.maximum(highest, s)
        decay = tl.exp2(highest - higher)
        weight = tl.exp2(s - higher)
        total = total * decay + weight
        acc = acc * decay[:, None] + weight[:, None] * v
        if SUM:
            plain += tl.where(inside[:, None], v, 0.0)
        highest = higher
    top = tl.max(highest, 0)
    weight = tl.exp2(highest - top)
    return top, tl.sum(total * weight, 0), tl.sum(acc * weight[:, None], 0), tl.sum(plain, 0)


@triton.jit
def _patch_rows(
    base, offsets, count, sum_v, results, logs, start, tokens,
    STRIDE: tl.constexpr, C: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BM: tl.constexpr, ZERO: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Attention of the patch queries start..start+BM-1 (tokens, from 1) of one head to `results`, their lse to `logs` unless None."""
    channel = tl.arange(0, DP)[None, :]
    row = start + tl.arange(0, BM)
    end = tokens - 1
    k = base + C
    q = _wide(base + (tl.minimum(row, end) * STRIDE)[:, None] + channel, channel, D, DP == D) * LOG2E  # (BM, DP)
    s = tl.sum(q * _wide(k + channel, channel, D, DP == D), 1)
    v = _wide(k + C + channel, channel, D, DP == D)  # (1, DP)
    if ZERO:
        highest = tl.maximum(s, 0.0) + HEADROOM
        rest = tl.exp2(-highest)
        weight = tl.exp2(s - highest) - rest
        total = weight + rest * tokens
        acc = weight[:, None] * v + rest[:, None] * sum_v[None, :]
    else:
        highest = s + HEADROOM
        total = tl.zeros((BM,), tl.float32) + tl.exp2(-HEADROOM)
        acc = total[:, None] * v
    for j in tl.range(0, count):
        o = tl.load(offsets + j)
        after = row + o
        before = row - o
        has_after = after <= end
        has_before = (before >= 1) & (o > 0)
        keys_after = k + (tl.minimum(after, end) * STRIDE)[:, None] + channel
        keys_before = k + (tl.minimum(tl.maximum(before, 1), end) * STRIDE)[:, None] + channel
        k_after = _wide(keys_after, channel, D, DP == D)
        k_before = _wide(keys_before, channel, D, DP == D)
        v_after = _load(keys_after + C, channel, D, DP == D)
        v_before = _load(keys_before + C, channel, D, DP == D)
        s_after = tl.where(has_after, tl.sum(q * k_after, 1), -float("inf"))
        s_before = tl.where(has_before, tl.sum(q * k_before, 1), -float("inf"))
        higher = tl.maximum(highest, tl.maximum(s_after, s_before) + HEADROOM)
        decay = tl.exp2(highest - higher)
        w_after = tl.exp2(s_after - higher)
        w_before = tl.exp2(s_before - higher)
        if ZERO:
            rest = tl.exp2(-higher)
            w_after -= tl.where(has_after, rest, 0.0)
            w_before -= tl.where(has_before, rest, 0.0)
        total = total * decay + (w_after + w_before)
        if PACKED:  # two products at a time, in the 16 bit of v
            w_after, w_before = w_after.to(v_after.dtype), w_before.to(v_after.dtype)
            acc = acc * decay[:, None] + (w_after[:, None] * v_after + w_before[:, None] * v_before).to(tl.float32)
        else:
            both = w_after[:, None] * v_after.to(tl.float32) + w_before[:, None] * v_before.to(tl.float32)
            acc = acc * decay[:, None] + both
        highest = higher
    acc = acc * (1.0 / total)[:, None]
    inside = (row <= end)[:, None] & (channel < D)
    tl.store(results + (row * C)[:, None] + channel, acc.to(results.dtype.element_ty), mask=inside)
    if logs is not None:
        tl.store(logs + row, highest + tl.log2(total), mask=row <= end)


@triton.jit(do_not_specialize=["tokens", "span"])
def offset_attention_kernel(
    qkv, offsets, sums, parts, tokens, span, out, lse,
    HEADS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, M: tl.constexpr, MP: tl.constexpr, BM: tl.constexpr,
    ZERO: tl.constexpr, FIRST: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.attention.fibonacci.offset_attention`; contiguous tensors. Grid: B * HEADS * ceil((tokens - 1) / span), and
    B * HEADS more where FIRST is "own".

    Arguments, by name:
        qkv: (B, tokens, 3*HEADS*D), of fewer than 2^31 values per picture.
        offsets: (HEADS, M) int32, ascending, filled up with numbers of at least tokens - 1.
        sums: None, or (B, HEADS*D) float32, the sums of v over all tokens, read where ZERO unless a program has a whole head.
        parts: None, or (B, HEADS, programs of a head, 2 + DP) float32 that FIRST "part" writes.
        tokens: N + 1, the class token first.
        span: patch queries of a program, a multiple of BM.
        out: (B, tokens, HEADS*D).
        lse: None, or (B, HEADS, tokens), float32: gets log2 of the sum of a query's weights, which are powers of e, for the backward pass.
            Not with FIRST "own".
        DP, MP: powers of two that D and M are padded to.
        BM: queries of a block, a power of two.
        ZERO: keys left out have logit 0; else weight 0.
        FIRST: what becomes of the class token's query: "whole" (every program has a whole head), "part" (into `parts`), "own" (programs
            of its own, the first ones) or "none".
        PACKED: products with v are rounded to the type of v, which 16-bit hardware does two at a time.
    """
    C: tl.constexpr = HEADS * D
    STRIDE: tl.constexpr = 3 * C
    chunks = tl.cdiv(tokens - 1, span)
    channel = tl.arange(0, DP)
    program = tl.program_id(0)
    if FIRST == "own":
        rows = tl.num_programs(0) // (chunks + 1)
        if program < rows:
            image, head = (program // HEADS).to(tl.int64), program % HEADS
            top, total, acc, sum_v = _class_rows(
                qkv + image * tokens * STRIDE + head * D, 0, tokens, STRIDE, C, D, DP, BM, False
            )  # fmt: skip
            tl.store(
                out + image * tokens * C + head * D + channel, (acc / total).to(out.dtype.element_ty), mask=channel < D
            )
            return
        program -= rows
    # heads side by side: their channels are neighbours in memory
    head, chunk = program % HEADS, program // HEADS
    image, chunk = chunk // chunks, chunk % chunks
    first = 1 + chunk * span
    last = tl.minimum(first + span, tokens)
    base = qkv + image.to(tl.int64) * tokens * STRIDE + head * D
    results = out + image.to(tl.int64) * tokens * C + head * D
    logs = lse
    if lse is not None:
        logs += (image * HEADS + head).to(tl.int64) * tokens
    slot = tl.arange(0, MP)
    listed = tl.load(offsets + head * M + slot, mask=slot < M, other=2147483647)
    count = tl.sum((listed < tokens - 1).to(tl.int32), 0)

    sum_v = tl.zeros((DP,), tl.float32)
    if FIRST == "whole":
        top, total, acc, sum_v = _class_rows(base, 0, tokens, STRIDE, C, D, DP, BM, ZERO)
        tl.store(results + channel, (acc / total).to(out.dtype.element_ty), mask=channel < D)
        if lse is not None:
            tl.store(logs, top + tl.log2(total))
    elif FIRST == "part":
        # the class token as a key belongs to the first program's part
        top, total, acc, sum_v = _class_rows(base, tl.where(chunk == 0, 0, first), last, STRIDE, C, D, DP, BM, False)
        part = parts + ((image * HEADS + head).to(tl.int64) * chunks + chunk) * (2 + DP)
        tl.store(part, top)
        tl.store(part + 1, total)
        tl.store(part + 2 + channel, acc)
    if ZERO and FIRST != "whole":
        sum_v = tl.load(sums + (image * HEADS + head) * D + channel, mask=channel < D, other=0.0)
    for start in tl.range(first, last, BM):
        _patch_rows(
            base, offsets + head * M, count, sum_v, results, logs, start, tokens, STRIDE, C, D, DP, BM, ZERO, PACKED
        )


@triton.jit(do_not_specialize=["tokens"])
def class_parts_kernel(
    qkv, parts, part_sums, tokens,
    HEADS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr, STAGES: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Parts of the class token's query and of the sums of v, `KEYS` keys each. Grid: B * HEADS * ceil(tokens / KEYS).

    Arguments, by name, where other than those of `offset_attention_kernel`:
        parts: (B, HEADS, ceil(tokens / KEYS), 2 + DP) float32: maximum, sum, weighted values.
        part_sums: (B, HEADS, ceil(tokens / KEYS), DP) float32: sums of v.
        BN: keys of a block, a power of two >= 16.
        STAGES: such blocks in flight.
    """
    C: tl.constexpr = HEADS * D
    head, chunk = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    chunks = tl.cdiv(tokens, KEYS)
    image, chunk = chunk // chunks, chunk % chunks
    base = qkv + image.to(tl.int64) * tokens * (3 * C) + head * D
    last = tl.minimum(chunk * KEYS + KEYS, tokens)
    top, total, acc, plain = _class_part(base, chunk * KEYS, last, 3 * C, C, D, DP, BN, STAGES)
    place = (image * HEADS + head).to(tl.int64) * chunks + chunk
    channel = tl.arange(0, DP)
    tl.store(parts + place * (2 + DP), top)
    tl.store(parts + place * (2 + DP) + 1, total)
    tl.store(parts + place * (2 + DP) + 2 + channel, acc)
    tl.store(part_sums + place * DP + channel, plain)


@triton.jit(do_not_specialize=["tokens", "count"])
def merge_kernel(
    parts, part_sums, sums, out, lse, tokens, count,
    HEADS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Row of the class token and its lse from its `count` parts, and the sums of v from theirs where there are any. Grid: B * HEADS."""
    channel = tl.arange(0, DP)[None, :]
    image, head = tl.program_id(0) // HEADS, tl.program_id(0) % HEADS
    begin = tl.program_id(0).to(tl.int64) * count
    highest = tl.full((BN,), LOWEST, tl.float32)
    total = tl.zeros((BN,), tl.float32)
    acc = tl.zeros((BN, DP), tl.float32)
    plain = tl.zeros((BN, DP), tl.float32)
    for start in tl.range(0, count, BN):
        i = start + tl.arange(0, BN)
        inside = i < count
        part = parts + (begin + i) * (2 + DP)
        s = tl.load(part, mask=inside, other=LOWEST)
        higher = tl.maximum(highest, s)
        decay = tl.exp2(highest - higher)
        weight = tl.exp2(s - higher)
        total = total * decay + weight * tl.load(part + 1, mask=inside, other=0.0)
        values = tl.load((part + 2)[:, None] + channel, mask=inside[:, None], other=0.0)
        acc = acc * decay[:, None] + weight[:, None] * values
        if part_sums is not None:
            plain += tl.load(part_sums + ((begin + i) * DP)[:, None] + channel, mask=inside[:, None], other=0.0)
        highest = higher
    top = tl.max(highest, 0)
    weight = tl.exp2(highest - top)
    total = tl.sum(total * weight, 0)
    result = tl.sum(acc * weight[:, None], 0) / total
    channel = tl.arange(0, DP)
    place = out + image.to(tl.int64) * tokens * (HEADS * D) + head * D
    tl.store(place + channel, result.to(out.dtype.element_ty), mask=channel < D)
    if lse is not None:
        tl.store(lse + tl.program_id(0).to(tl.int64) * tokens, top + tl.log2(total))
    if part_sums is not None:
        tl.store(sums + tl.program_id(0) * D + channel, tl.sum(plain, 0), mask=channel < D)
