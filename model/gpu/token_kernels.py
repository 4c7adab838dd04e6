"""Passes over tokens, (rows, C), between the products of a plain transformer: residual and LayerNorm in one, GELU."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def add_norm_kernel(
    x, y, total, normal, rows, EPS: tl.constexpr, C: tl.constexpr, CP: tl.constexpr, BM: tl.constexpr
):  # fmt: skip
    """total = x + y (x itself where y is None, and not stored), normal = LayerNorm(total) without an affine part; statistics in float32.

    Arguments, by name:
        x, y, total, normal: (rows, C), contiguous.
        CP: power of two that C is padded to.
        BM: rows of a program. Grid: ceil(rows / BM).
    """
    row = tl.program_id(0).to(tl.int64) * BM + tl.arange(0, BM)
    channel = tl.arange(0, CP)[None, :]
    inside = (row < rows)[:, None] & (channel < C)
    place = row[:, None] * C + channel
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if y is not None:
        value += tl.load(y + place, mask=inside, other=0.0).to(tl.float32)
        value = value.to(x.dtype.element_ty)
        tl.store(total + place, value, mask=inside)
        value = value.to(tl.float32)  # what the residual holds from here on, rounded as it is
    mean = tl.sum(value, 1) / C
    centred = tl.where(inside, value - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / C
    result = centred * tl.rsqrt(variance + EPS)[:, None]
    tl.store(normal + place, result.to(normal.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["count"])
def gelu_kernel(x, out, count, BLOCK: tl.constexpr):
    """out = x * Phi(x), exact, `count` values. Grid: ceil(count / BLOCK)."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    result = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    tl.store(out + place, result.to(out.dtype.element_ty), mask=inside)
