"""The fused kernel of `disc_attention`: one Triton source for PyTorch on a GPU, for plugins and for the tests.

One program computes one tile of queries of one head: TY x TX tokens of the picture, or as many text tokens. Keys come in blocks of KY x
KX: first those that every query of the tile sees whole (text, pooled keys, full blocks of the disc), without any mask, then ragged ends
and the blocks at the disc's rim. A query sees a key of such a block if (row difference)^2 < radius^2 - (column difference)^2. Neither
side depends on more than a row or a column of the block, nor does being inside the picture, so a logit costs two instructions.

Softmax subtracts from all logits of a query one fixed reference instead of a running maximum: its largest logit among the first text
keys, plus 8 (base 2), so nothing is rescaled and products overlap with exponentials. The largest weight is 2^-8 or more; where weights
leave the type, so does their sum, and the program repeats its work with the online softmax (arXiv 1805.02867). The same happens without
text.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
HEADROOM = tl.constexpr(8.0)  # log2 of the distance between the reference and weight 1, see above
FAR = tl.constexpr(1 << 30)  # above every squared distance


@triton.jit
def _load_rows(pointers, channel, keep, D: tl.constexpr, DP: tl.constexpr, MASKED: tl.constexpr):
    """Load (rows, DP), zero beyond channel D and, if MASKED, where `keep` (rows, 1) is False."""
    if MASKED:
        return tl.load(pointers, mask=keep & (channel < D), other=0.0)
    if D == DP:
        return tl.load(pointers)
    return tl.load(pointers, mask=channel < D, other=0.0)


@triton.jit
def _plain_scores(
    q, k, v, first, row_stride, k_stride, v_stride, D: tl.constexpr, DP: tl.constexpr, KX: tl.constexpr, BN: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits (BM, BN) of a block of keys that all exist, and its v (BN, DP); rows of KX tokens are `row_stride` tokens apart."""
    j = tl.arange(0, BN)
    token = j // KX * row_stride + j % KX
    channel = tl.arange(0, DP)[None, :]
    keys = k + first.to(tl.int64) * k_stride + (token * k_stride)[:, None] + channel
    values = v + first.to(tl.int64) * v_stride + (token * v_stride)[:, None] + channel
    s = tl.dot(q, _load_rows(keys, channel, None, D, DP, False).T, input_precision=PRECISION)
    return s, _load_rows(values, channel, None, D, DP, False)


@triton.jit
def _disc_scores(
    q, k, v, y, x, code, H, W, text, limit, k_stride, v_stride,
    D: tl.constexpr, DP: tl.constexpr, KX: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits (BM, BN) of a block of the picture, its first row and column packed in `code`, -inf where a query does not see a key; its
    v."""
    j = tl.arange(0, BN)
    channel = tl.arange(0, DP)[None, :]
    row, column = (code >> 16) + j // KX, (code & 0xFFFF) + j % KX
    keep = ((row < H) & (column < W))[:, None]
    token = (text + row * W + column).to(tl.int64)
    keys = k + (token * k_stride)[:, None] + channel
    values = v + (token * v_stride)[:, None] + channel
    s = tl.dot(q, _load_rows(keys, channel, keep, D, DP, True).T, input_precision=PRECISION)
    down, across = row[None, :] - y[:, None], column[None, :] - x[:, None]
    of_row = tl.where(row[None, :] < H, down * down, FAR)
    of_column = tl.where(column[None, :] < W, limit - across * across, -1)
    return tl.where(of_row < of_column, s, -float("inf")), _load_rows(values, channel, keep, D, DP, True)


@triton.jit
def _line_scores(
    q, k, v, first, end, k_stride, v_stride,
    D: tl.constexpr, DP: tl.constexpr, BN: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Logits (BM, BN) of the tokens from `first` on, -inf from `end` on; its v."""
    token = first + tl.arange(0, BN)
    channel = tl.arange(0, DP)[None, :]
    keep = (token < end)[:, None]
    keys = k + (token.to(tl.int64) * k_stride)[:, None] + channel
    values = v + (token.to(tl.int64) * v_stride)[:, None] + channel
    s = tl.dot(q, _load_rows(keys, channel, keep, D, DP, True).T, input_precision=PRECISION)
    return tl.where((token < end)[None, :], s, -float("inf")), _load_rows(values, channel, keep, D, DP, True)


@triton.jit
def _online(s, values, factor, reference, total, acc, PRECISION: tl.constexpr):
    """One step of the online softmax."""
    higher = tl.maximum(reference, tl.max(s, 1) * factor)
    p = tl.exp2(s * factor - higher[:, None])
    decay = tl.exp2(reference - higher)
    total = total * decay + tl.sum(p, 1)
    acc = tl.dot(p.to(values.dtype), values, acc * decay[:, None], input_precision=PRECISION)
    return higher, total, acc


@triton.jit(do_not_specialize=["H", "W", "text", "text_begin", "text_end", "radius", "pooled"])
def disc_attention_kernel(
    q, k, v, starts, full, blocks, H, W, text, text_begin, text_end, radius, pooled, scale,
    q_batch, q_stride, k_batch, k_stride, v_batch, v_stride, out, lse, failed,
    HEADS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """See `flashrib.model.attention.disc.disc_attention`. Grid: B * HEADS * (ceil(text/BM) + ceil(H/TY)*ceil(W/TX)), BM = TY*TX.

    Arguments, by name:
        q: (B, n, HEADS, D), n = text + H*W, tokens `q_stride` and pictures `q_batch` elements apart.
        k, v: (B, n + pooled, HEADS, D), likewise.
        starts, full, blocks: see `flashrib.model.attention.disc.blocks.BlockLists`.
        text_begin, text_end: tokens that text queries see.
        radius: of the disc, strict.
        scale: of the logits, float32.
        out: (B, n, HEADS, D), contiguous.
        lse: (B, HEADS, n), float32, natural logarithm.
        failed: None, or one int32: where it is 0, nothing is computed.
        DP: power of two >= 16 that D is padded to.
        STAGES: blocks of keys in flight.
        PRECISION: of float32 products, "ieee", "tf32" or "tf32x3"; no meaning for 16 bit.
    """
    if failed is not None:  # noqa: SIM102  # decided when it is compiled, unlike the next
        if tl.load(failed) == 0:
            return
    BM: tl.constexpr = TY * TX
    BN: tl.constexpr = KY * KX
    LIMIT: tl.constexpr = (
        6e4 if q.dtype.element_ty == tl.float16 else 1e30
    )  # no weight beyond it, so none leaves the type
    n = text + H * W
    columns = tl.cdiv(W, TX)
    tiles = tl.cdiv(H, TY) * columns
    text_tiles = tl.cdiv(text, BM)
    # text first, since it takes longest; then head after head, tiles row by row, which share keys
    batch = tl.num_programs(0) // (HEADS * (text_tiles + tiles))
    pid = tl.program_id(0)
    is_text = pid < batch * HEADS * text_tiles
    pid = tl.where(is_text, pid, pid - batch * HEADS * text_tiles)
    count = tl.where(is_text, text_tiles, tiles)
    tile = pid % count
    head = pid // count % HEADS
    image = (pid // count // HEADS).to(tl.int64)

    m = tl.arange(0, BM)
    y, x = tile // columns * TY + m // TX, tile % columns * TX + m % TX
    exists = tl.where(is_text, tile * BM + m < text, (y < H) & (x < W))
    token = tl.where(is_text, tile * BM + m, text + y * W + x)
    channel = tl.arange(0, DP)[None, :]
    q += image * q_batch + head * D
    k += image * k_batch + head * D
    v += image * v_batch + head * D
    queries = tl.load(
        q + (token.to(tl.int64) * q_stride)[:, None] + channel, mask=exists[:, None] & (channel < D), other=0.0
    )

    # keys one after the other: text queries see their own range, the picture's 0..text and the pooled ones n..n+pooled
    begin = tl.where(is_text, text_begin, 0)
    end = tl.where(is_text, text_end, text)
    beyond = tl.where(is_text, n, n + pooled)
    start = tl.load(starts + tl.where(is_text, 0, tile))
    ids = blocks + start
    entries = tl.where(is_text, 0, tl.load(starts + tl.where(is_text, 0, tile) + 1) - start)
    entries_full = tl.where(is_text, 0, tl.load(full + tl.where(is_text, 0, tile)))
    whole_first = (end - begin) // BN  # whole blocks of each kind
    whole_pooled = (beyond - n) // BN
    tail_begin = tl.where((whole_first > 0) & ((end - begin) % BN != 0), 0, 1)  # the first block of all is taken apart
    tail_end = tl.where((beyond - n) % BN != 0, 2, 1)
    limit = radius * radius
    factor = scale * LOG2E

    # the first keys give the reference; without text there are none, NaN results, and the end repeats everything
    s, values = _line_scores(queries, k, v, begin, end, k_stride, v_stride, D, DP, BN, PRECISION)
    reference = tl.max(s, 1) * factor + HEADROOM
    p = tl.exp2(s * factor - reference[:, None])
    total = tl.sum(p, 1)
    acc = tl.dot(p.to(values.dtype), values, input_precision=PRECISION)
    more_first = tl.maximum(whole_first - 1, 0)
    in_line = more_first + whole_pooled
    for i in tl.range(0, in_line + entries_full, num_stages=STAGES):
        code = tl.load(ids + tl.maximum(i - in_line, 0))
        first = tl.where(i < more_first, begin + (i + 1) * BN, n + (i - more_first) * BN)
        first = tl.where(i < in_line, first, text + (code >> 16) * W + (code & 0xFFFF))
        s, values = _plain_scores(
            queries, k, v, first, tl.where(i < in_line, KX, W), k_stride, v_stride, D, DP, KX, BN, PRECISION
        )  # fmt: skip
        p = tl.exp2(s * factor - reference[:, None])
        total += tl.sum(p, 1)
        acc = tl.dot(p.to(values.dtype), values, acc, input_precision=PRECISION)
    for i in tl.range(entries_full, entries, num_stages=STAGES):
        s, values = _disc_scores(
            queries, k, v, y, x, tl.load(ids + i), H, W, text, limit, k_stride, v_stride, D, DP, KX, BN, PRECISION
        )  # fmt: skip
        p = tl.exp2(s * factor - reference[:, None])
        total += tl.sum(p, 1)
        acc = tl.dot(p.to(values.dtype), values, acc, input_precision=PRECISION)
    for i in tl.range(tail_begin, tail_end, num_stages=1):  # ragged ends
        s, values = _line_scores(
            queries, k, v, tl.where(i == 0, begin + whole_first * BN, n + whole_pooled * BN), tl.where(i == 0, end, beyond),
            k_stride, v_stride, D, DP, BN, PRECISION,
        )  # fmt: skip
        p = tl.exp2(s * factor - reference[:, None])
        total += tl.sum(p, 1)
        acc = tl.dot(p.to(values.dtype), values, acc, input_precision=PRECISION)

    complete = tl.min((total < LIMIT).to(tl.int32))  # False for NaN
    if complete == 0:
        acc = tl.zeros((BM, DP), tl.float32)
        total = tl.zeros((BM,), tl.float32)
        reference = tl.full((BM,), -1e30, tl.float32)
        blocks_first = tl.cdiv(end - begin, BN)
        for i in tl.range(0, blocks_first + tl.cdiv(beyond - n, BN), num_stages=1):
            s, values = _line_scores(
                queries, k, v, tl.where(i < blocks_first, begin + i * BN, n + (i - blocks_first) * BN),
                tl.where(i < blocks_first, end, beyond), k_stride, v_stride, D, DP, BN, PRECISION,
            )  # fmt: skip
            reference, total, acc = _online(s, values, factor, reference, total, acc, PRECISION)
        for i in tl.range(0, entries, num_stages=1):
            s, values = _disc_scores(
                queries, k, v, y, x, tl.load(ids + i), H, W, text, limit, k_stride, v_stride, D, DP, KX, BN, PRECISION
            )  # fmt: skip
            reference, total, acc = _online(s, values, factor, reference, total, acc, PRECISION)

    acc *= (1.0 / total)[:, None]
    out += image * n * (HEADS * D) + head * D
    tl.store(
        out + (token.to(tl.int64) * (HEADS * D))[:, None] + channel,
        acc.to(out.dtype.element_ty),
        mask=exists[:, None] & (channel < D),
    )
    tl.store(lse + (image * HEADS + head) * n + token, (reference + tl.log2(total)) * LN2, mask=exists)
