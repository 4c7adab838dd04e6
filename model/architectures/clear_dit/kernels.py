"""Triton kernels of the passes in `passes.py`; statistics and sums in float32."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n"])
def modulate_kernel(
    x, scale, shift, out, n, x_batch, mod_batch, C: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr
):  # fmt: skip
    """One token: LayerNorm, times 1 + scale, plus shift. x (B, n, C), pictures `x_batch` apart; out contiguous. Grid: B*n."""
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // n, row % n
    c = tl.arange(0, BLOCK)
    inside = c < C
    v = tl.load(x + batch * x_batch + token * C + c, mask=inside, other=0.0).to(tl.float32)
    v -= tl.sum(v, 0) / C
    v = tl.where(inside, v, 0.0)
    v *= tl.rsqrt(tl.sum(v * v, 0) / C + EPS)
    a = tl.load(scale + batch * mod_batch + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(shift + batch * mod_batch + c, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * C + c, (v * (1 + a) + b).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n"])
def add_gated_kernel(x, gate, y, more, n, x_batch, gate_batch, C: tl.constexpr, BLOCK: tl.constexpr):
    """One token: y = x + gate * (y + more). x (B, n, C), pictures `x_batch` apart; y and more contiguous. Grid: B*n."""
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // n, row % n
    c = tl.arange(0, BLOCK)
    inside = c < C
    v = tl.load(y + row * C + c, mask=inside, other=0.0).to(tl.float32)
    if more is not None:
        v += tl.load(more + row * C + c, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + batch * gate_batch + c, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(x + batch * x_batch + token * C + c, mask=inside, other=0.0).to(tl.float32) + g * v
    if y.dtype.element_ty == tl.float16:
        v = tl.minimum(tl.maximum(v, -65504.0), 65504.0)
    tl.store(y + row * C + c, v.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n", "rows", "text"])
def norm_and_rotate_kernel(
    joint, cos, sin, image_q, image_k, text_q, text_k, n, rows, text,
    HEADS: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, EPS: tl.constexpr,
):  # fmt: skip
    """All heads of q (program 0 in y) or k (1) of one token, in place. joint (B, rows, 3, HEADS, D); cos, sin (n, D/2). Grid: B*n, 2."""
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // n, row % n
    which = tl.program_id(1)
    h, d, half = tl.arange(0, BLOCK), tl.arange(0, D), tl.arange(0, D // 2)
    place = joint + (((batch * rows + token) * 3 + which) * HEADS) * D + h[:, None] * D + d[None, :]
    inside = (h < HEADS)[:, None]
    v = tl.load(place, mask=inside, other=0.0).to(tl.float32)  # (BLOCK, D)
    v *= tl.rsqrt(tl.sum(v * v, 1) / D + EPS)[:, None]
    words = token < text
    weight_q = tl.load(tl.where(words, text_q, image_q) + d)
    weight_k = tl.load(tl.where(words, text_k, image_k) + d)
    v *= tl.where(which == 0, weight_q, weight_k)[None, :]
    even, odd = tl.split(tl.reshape(v, (BLOCK, D // 2, 2)))
    c = tl.load(cos + token * (D // 2) + half)[None, :]
    s = tl.load(sin + token * (D // 2) + half)[None, :]
    v = tl.reshape(tl.join(even * c - odd * s, odd * c + even * s), (BLOCK, D))
    tl.store(place, v.to(joint.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["W", "text", "n", "pooled"])
def pool_kernel(
    x, weight, W, text, n, pooled, batch_stride, stride, C: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """One pooled token, BLOCK of its C channels: the weighted sum of F x F tokens. x (B, n + pooled, C). Grid: B*pooled,
    ceil(C/BLOCK)."""
    index = tl.program_id(0)
    batch, cell = (index // pooled).to(tl.int64), index % pooled
    x += batch * batch_stride
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = c < C
    y, left = cell // (W // F) * F, cell % (W // F) * F
    total = tl.zeros((BLOCK,), tl.float32)
    for i in tl.static_range(F):
        for j in tl.static_range(F):
            token = (text + (y + i) * W + left + j).to(tl.int64)
            v = tl.load(x + token * stride + c, mask=inside, other=0.0).to(tl.float32)
            total += v * tl.load(weight + i * F + j).to(tl.float32)
    tl.store(x + (n + cell).to(tl.int64) * stride + c, total.to(x.dtype.element_ty), mask=inside)
