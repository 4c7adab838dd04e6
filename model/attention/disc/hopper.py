"""The attention of `kernel.py` for Hopper (sm_90), 16 bit, heads of 128 or 64 channels: warps with roles, in Gluon.

A program stays on its multiprocessor and takes one item of work after the other from a schedule made on the host. An item is a row of
`GROUP` neighbouring tiles of 8 x 8 queries of one head (or as many text queries). One warp copies blocks of 64 keys by the copy engine,
several ahead and over the borders of items; each of `GROUP` warpgroups computes one tile. So a block of keys is read once for all tiles
of a group, as large tiles do, while each tile computes only the blocks that it needs itself, as small tiles do; a warpgroup passes over
the others' blocks.

Blocks of an item come in three runs: those that no tile must mask, ragged ends of text and pooled keys, and those of the disc's rim.
Masks and softmax with a fixed reference are as in `kernel.py`, but where weights leave the type
nothing is repeated here: `failed` is set, and the caller runs `kernel.py`.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

LOG2E = gl.constexpr(1.4426950408889634)
LN2 = gl.constexpr(0.6931471805599453)
HEADROOM = gl.constexpr(8.0)
FAR = gl.constexpr(1 << 30)
SIDE = gl.constexpr(8)  # of a tile and of a block of keys
FIRST, SECOND = gl.constexpr(0), gl.constexpr(1)  # tiles of a group
GROUP = gl.constexpr(2)  # their number; three leave each too few registers
BLOCK = gl.constexpr(64)  # keys of a block, queries of a tile


@gluon.jit
def _item(work, meta, index, text, text_begin, text_end, pooled, HEADS: gl.constexpr):
    """One item: what it is, where, and how many blocks of each kind it has."""
    group = gl.load(work + 2 * index)
    where = gl.load(work + 2 * index + 1)
    is_text = group < 0
    group = gl.where(is_text, -1 - group, group)
    head, image = where % HEADS, where // HEADS
    entry = gl.where(is_text, 0, group) * 8
    start = gl.load(meta + entry)
    clean = gl.where(is_text, 0, gl.load(meta + entry + 1))
    masked = gl.where(is_text, 0, gl.load(meta + entry + 2))
    begin = gl.where(is_text, text_begin, 0)
    end = gl.where(is_text, text_end - text_begin, text)
    extra = gl.where(is_text, 0, pooled)
    return is_text, group, head, image, start, clean, masked, begin, end, extra


@gluon.jit
def _tails(end, extra):
    """Whole blocks of the first keys and of the pooled ones, and how many ragged ends there are, of the first keys and in all."""
    first, second = end // BLOCK, extra // BLOCK
    ragged = (end % BLOCK != 0).to(gl.int32)
    return first, second, ragged, ragged + (extra % BLOCK != 0).to(gl.int32)


@gluon.jit
def _copy(line, area, is_line, token, code, head, image, barrier, target, D: gl.constexpr):
    """Start the copy of one block of keys: `BLOCK` tokens in line, or a square of the picture."""
    mbarrier.expect(barrier, BLOCK * D * 2)
    if is_line:
        tma.async_copy_global_to_shared(line, [image, token, head * D], barrier, target.reshape([1, BLOCK, D]))
    else:
        tma.async_copy_global_to_shared(
            area, [image, (code >> 20) * SIDE, ((code >> 8) & 0xFFF) * SIDE, head * D], barrier, target
        )


@gluon.jit
def _producer(
    q_line, q_area, k_line, k_area, v_line, v_area, work, schedule, meta, entries, H, W, text, text_begin, text_end, pooled,
    q_smem, k_smem, v_smem, q_full, q_empty, k_full, k_empty, v_full, v_empty,
    HEADS: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    n = text + H * W
    columns = (W + SIDE * GROUP - 1) // (SIDE * GROUP)
    pid = gl.program_id(0)
    item, stop = gl.load(schedule + pid), gl.load(schedule + pid + 1)
    used = 0  # blocks so far
    for index in range(item, stop):
        is_text, group, head, image, start, clean, masked, begin, end, extra = _item(
            work, meta, index, text, text_begin, text_end, pooled, HEADS
        )
        first, second, ragged, tails = _tails(end, extra)
        turn = (index - item) & 1
        for i in gl.static_range(GROUP):
            mbarrier.wait(q_empty.index(i), turn ^ 1)
            mbarrier.expect(q_full.index(i), BLOCK * D * 2)
            if is_text:
                tma.async_copy_global_to_shared(
                    q_line,
                    [image, (group * GROUP + i) * BLOCK, head * D],
                    q_full.index(i),
                    q_smem.index(i).reshape([1, BLOCK, D]),
                )
            else:
                tma.async_copy_global_to_shared(
                    q_area,
                    [image, group // columns * SIDE, (group % columns * GROUP + i) * SIDE, head * D],
                    q_full.index(i),
                    q_smem.index(i),
                )
        in_line = first + second
        unmasked = in_line + clean
        blocks = unmasked + tails + masked
        code = gl.load(entries + start)
        for i in range(blocks):
            following = gl.where(i + 1 < unmasked, i + 1 - in_line, gl.maximum(i + 1 - in_line - tails, clean))
            following = gl.minimum(gl.maximum(following, 0), gl.maximum(clean + masked - 1, 0))
            after = gl.load(entries + start + following)
            token = gl.where(i < first, begin + i * BLOCK, n + (i - first) * BLOCK)
            tail = i - unmasked
            is_tail = (tail >= 0) & (tail < tails)
            token = gl.where(is_tail, gl.where(tail < ragged, begin + first * BLOCK, n + second * BLOCK), token)
            stage = used % STAGES
            phase = (used // STAGES) & 1
            mbarrier.wait(k_empty.index(stage), phase ^ 1)
            _copy(
                k_line,
                k_area,
                (i < in_line) | is_tail,
                token,
                code,
                head,
                image,
                k_full.index(stage),
                k_smem.index(stage),
                D,
            )
            mbarrier.wait(v_empty.index(stage), phase ^ 1)
            _copy(
                v_line,
                v_area,
                (i < in_line) | is_tail,
                token,
                code,
                head,
                image,
                v_full.index(stage),
                v_smem.index(stage),
                D,
            )
            code = after
            used += 1


@gluon.jit
def _weights(s, reference, factor, total, dtype: gl.constexpr, layout: gl.constexpr):
    p = gl.exp2(s * factor - reference[:, None])
    total += gl.sum(p, 1)
    return gl.convert_layout(p.to(dtype), layout), total


@gluon.jit
def _seen(s, is_tail, left, code, y, x, H, W, limit, layout: gl.constexpr):
    """Logits of a block, -inf where a query does not see a key: in the picture as in `kernel.py`; of a ragged end, the first `left` keys.

    Both are comparisons of a number of the key's row in the block with one of its column, so most of the work is shared between logits.
    """
    j = gl.arange(0, BLOCK, layout=gl.SliceLayout(0, layout))
    line, place = (j // SIDE)[None, :], (j % SIDE)[None, :]
    row = (code >> 20) * SIDE + line
    column = ((code >> 8) & 0xFFF) * SIDE + place
    down, across = row - y[:, None], column - x[:, None]
    of_row = gl.where(is_tail, line, gl.where(row < H, down * down, FAR))
    of_column = gl.where(is_tail, (left - place + SIDE - 1) // SIDE, gl.where(column < W, limit - across * across, -1))
    return gl.where(of_row < of_column, s, -float("inf"))


@gluon.jit
def _pass_over(used, k_full, k_empty, v_full, v_empty, STAGES: gl.constexpr):
    """Release a block that only other tiles of the group need; not before it has come, or a release would count for the block before."""
    stage = used % STAGES
    phase = (used // STAGES) & 1
    mbarrier.wait(k_full.index(stage), phase)
    mbarrier.arrive(k_empty.index(stage), count=1)
    mbarrier.wait(v_full.index(stage), phase)
    mbarrier.arrive(v_empty.index(stage), count=1)


@gluon.jit
def _consumer(
    work, schedule, meta, entries, H, W, text, text_begin, text_end, radius, pooled, scale, out, lse, failed,
    q_smem, k_smem, v_smem, q_full, q_empty, k_full, k_empty, v_full, v_empty,
    HEADS: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, SELF: gl.constexpr,
):  # fmt: skip
    dtype: gl.constexpr = q_smem.dtype
    LIMIT: gl.constexpr = 6e4 if dtype == gl.float16 else 1e30
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, BLOCK, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    q_layout: gl.constexpr = gl.DotOperandLayout(0, s_layout, 2)
    p_layout: gl.constexpr = gl.DotOperandLayout(0, o_layout, 2)
    n = text + H * W
    columns = (W + SIDE * GROUP - 1) // (SIDE * GROUP)
    limit = radius * radius
    factor = scale * LOG2E
    pid = gl.program_id(0)
    item, stop = gl.load(schedule + pid), gl.load(schedule + pid + 1)
    used = 0
    m = gl.arange(0, BLOCK, layout=gl.SliceLayout(1, s_layout))
    nothing = gl.zeros([BLOCK, BLOCK], gl.float32, s_layout)
    for index in range(item, stop):
        is_text, group, head, image, start, clean, masked, _begin, end, extra = _item(
            work, meta, index, text, text_begin, text_end, pooled, HEADS
        )
        first, second, ragged, tails = _tails(end, extra)
        y = group // columns * SIDE + m // SIDE
        x = (group % columns * GROUP + SELF) * SIDE + m % SIDE
        turn = (index - item) & 1
        mbarrier.wait(q_full.index(SELF), turn)
        q = q_smem.index(SELF).reshape([BLOCK, D])
        q = q.load(q_layout)  # in registers, which spares half of the reads of the first product
        mbarrier.arrive(q_empty.index(SELF), count=1)

        # the first block of keys gives the reference
        stage = used % STAGES
        phase = (used // STAGES) & 1
        mbarrier.wait(k_full.index(stage), phase)
        k = k_smem.index(stage).reshape([BLOCK, D]).permute((1, 0))
        s = warpgroup_mma(q, k, nothing, use_acc=False)
        mbarrier.arrive(k_empty.index(stage), count=1)
        reference = gl.max(s, 1) * factor + HEADROOM
        total = gl.zeros([BLOCK], gl.float32, gl.SliceLayout(1, s_layout))
        p, total = _weights(s, reference, factor, total, dtype, p_layout)
        mbarrier.wait(v_full.index(stage), phase)
        v = v_smem.index(stage).reshape([BLOCK, D])
        o = warpgroup_mma(p, v, gl.zeros([BLOCK, D], gl.float32, o_layout), use_acc=False, is_async=True)
        used += 1

        for _i in range(1, first + second + clean):
            before = stage
            stage = used % STAGES
            phase = (used // STAGES) & 1
            mbarrier.wait(k_full.index(stage), phase)
            k = k_smem.index(stage).reshape([BLOCK, D]).permute((1, 0))
            s = warpgroup_mma(q, k, nothing, use_acc=False, is_async=True)
            o = warpgroup_mma_wait(1, deps=[o])
            mbarrier.arrive(v_empty.index(before), count=1)
            s = warpgroup_mma_wait(0, deps=[s])
            mbarrier.arrive(k_empty.index(stage), count=1)
            p, total = _weights(s, reference, factor, total, dtype, p_layout)
            mbarrier.wait(v_full.index(stage), phase)
            v = v_smem.index(stage).reshape([BLOCK, D])
            o = warpgroup_mma(p, v, o, is_async=True)
            used += 1

        o = warpgroup_mma_wait(0, deps=[o])
        mbarrier.arrive(v_empty.index(stage), count=1)

        # Blocks of others are passed over in a loop of its own: a branch that both ways carry `o` through would serialize all products.
        active = gl.where(is_text, 0, gl.load(meta + gl.where(is_text, 0, group) * 8 + 3 + SELF))
        place = start + clean
        last = start + clean + masked
        for i in range(tails + active):
            is_tail = i < tails
            left = gl.where(i < ragged, end % BLOCK, extra % BLOCK)
            code = gl.load(entries + place)
            while (i >= tails) & (((code >> SELF) & 1) == 0):
                _pass_over(used, k_full, k_empty, v_full, v_empty, STAGES)
                used += 1
                place += 1
                code = gl.load(entries + place)
            stage = used % STAGES
            phase = (used // STAGES) & 1
            mbarrier.wait(k_full.index(stage), phase)
            k = k_smem.index(stage).reshape([BLOCK, D]).permute((1, 0))
            s = warpgroup_mma(q, k, nothing, use_acc=False)
            mbarrier.arrive(k_empty.index(stage), count=1)
            s = _seen(s, is_tail, left, code, y, x, H, W, limit, s_layout)
            p, total = _weights(s, reference, factor, total, dtype, p_layout)
            mbarrier.wait(v_full.index(stage), phase)
            o = warpgroup_mma(p, v_smem.index(stage).reshape([BLOCK, D]), o)
            mbarrier.arrive(v_empty.index(stage), count=1)
            used += 1
            place += (i >= tails).to(gl.int32)
        for _i in range(place, last):
            _pass_over(used, k_full, k_empty, v_full, v_empty, STAGES)
            used += 1

        token = gl.where(is_text, (group * GROUP + SELF) * BLOCK + m, text + y * W + x)
        exists = gl.where(is_text, token < text, (y < H) & (x < W))
        good = gl.min((total < LIMIT).to(gl.int32), 0)
        if good == 0:
            gl.store(failed, 1)
        gl.store(lse + (image * HEADS + head).to(gl.int64) * n + token, (reference + gl.log2(total)) * LN2, mask=exists)
        o = o * gl.convert_layout(1.0 / total, gl.SliceLayout(1, o_layout))[:, None]
        row = gl.convert_layout(token, gl.SliceLayout(1, o_layout)).to(gl.int64)
        keep = gl.convert_layout(exists, gl.SliceLayout(1, o_layout))
        channel = gl.arange(0, D, layout=gl.SliceLayout(0, o_layout))
        place = out + (image.to(gl.int64) * n * HEADS + head) * D
        gl.store(place + (row * (HEADS * D))[:, None] + channel[None, :], o.to(dtype), mask=keep[:, None])


@gluon.jit(do_not_specialize=["H", "W", "text", "text_begin", "text_end", "radius", "pooled"])
def disc_attention_hopper(
    q_line, q_area, k_line, k_area, v_line, v_area, work, schedule, meta, entries, H, W, text, text_begin, text_end, radius, pooled,
    scale,
    out, lse, failed,
    HEADS: gl.constexpr, D: gl.constexpr, STAGES: gl.constexpr, REGISTERS: gl.constexpr,
):  # fmt: skip
    """See `flashrib.model.attention.disc.disc_attention`. Grid: one program for each multiprocessor.

    Arguments, by name:
        q_line, k_line, v_line: descriptors (B, tokens, HEADS*D), blocks of (1, 64, D).
        q_area, k_area, v_area: descriptors (B, H, W, HEADS*D) of the picture's tokens, blocks of (1, 8, 8, D).
        work, schedule, meta, entries: see `flashrib.model.attention.disc.schedule.Schedule`.
        text_begin, text_end: tokens that text queries see, 64 or more.
        out: (B, n, HEADS, D), contiguous.
        lse: (B, HEADS, n), float32.
        failed: one int32, 0 before; 1 after if a weight left the type.
        STAGES: blocks of keys in flight.
        REGISTERS: of a thread that computes.
    """
    layout: gl.constexpr = q_area.layout
    q_smem = gl.allocate_shared_memory(q_area.dtype, [GROUP, 1, SIDE, SIDE, D], layout)
    k_smem = gl.allocate_shared_memory(q_area.dtype, [STAGES, 1, SIDE, SIDE, D], layout)
    v_smem = gl.allocate_shared_memory(q_area.dtype, [STAGES, 1, SIDE, SIDE, D], layout)
    q_full = gl.allocate_shared_memory(gl.int64, [GROUP, 1], mbarrier.MBarrierLayout())
    q_empty = gl.allocate_shared_memory(gl.int64, [GROUP, 1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(GROUP):
        mbarrier.init(q_full.index(i), count=1)
        mbarrier.init(q_empty.index(i), count=1)
    for i in gl.static_range(STAGES):
        mbarrier.init(k_full.index(i), count=1)
        mbarrier.init(k_empty.index(i), count=GROUP)
        mbarrier.init(v_full.index(i), count=1)
        mbarrier.init(v_empty.index(i), count=GROUP)
    fence_async_shared()
    # fmt: off
    gl.warp_specialize(
        [
            (_consumer, (
                work, schedule, meta, entries, H, W, text, text_begin, text_end, radius, pooled, scale, out, lse, failed,
                q_smem, k_smem, v_smem, q_full, q_empty, k_full, k_empty, v_full, v_empty, HEADS, D, STAGES, FIRST,
            )),
            (_consumer, (
                work, schedule, meta, entries, H, W, text, text_begin, text_end, radius, pooled, scale, out, lse, failed,
                q_smem, k_smem, v_smem, q_full, q_empty, k_full, k_empty, v_full, v_empty, HEADS, D, STAGES, SECOND,
            )),
            (_producer, (
                q_line, q_area, k_line, k_area, v_line, v_area, work, schedule, meta, entries, H, W, text, text_begin, text_end,
                pooled,
                q_smem, k_smem, v_smem, q_full, q_empty, k_full, k_empty, v_full, v_empty, HEADS, D, STAGES,
            )),
        ],
        [4, 1],
        [REGISTERS, 40],
    )
    # fmt: on
