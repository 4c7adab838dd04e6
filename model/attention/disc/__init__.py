"""`disc_attention`, the attention of CLEAR (arXiv 2412.16112): text sees everything, the picture sees the text and a disc around each
token.

`reference.py` is the definition, `tiled.py` the form for every device with memory linear in the tokens, `kernel.py` our kernel for CUDA
GPUs and `op.py` the operator of PyTorch that takes one of both; `pool_tokens` makes the pooled keys and values of CLEAR's down-sampled
variants.
"""

from typing import Protocol

import torch
from torch import Tensor

from flashrib.model.attention.disc.merge import merge_attention
from flashrib.model.attention.disc.op import disc_attention_op, disc_attention_triton
from flashrib.model.attention.disc.reference import (
    Grid,
    disc_attention_reference,
    disc_mask,
)
from flashrib.model.attention.disc.reference import pool_tokens as pool_tokens_reference
from flashrib.model.attention.disc.symbolic import disc_attention_symbolic, pool_tokens_symbolic
from flashrib.model.attention.disc.tiled import disc_attention_tiled
from flashrib.runtime.errors import UsageError

__all__ = ["FORMS", "Grid", "disc_attention", "disc_mask", "merge_attention", "not_supported_reasons", "pool_tokens"]

_LARGEST_SIDE = 32767  # tokens; blocks keep a row and a column in 16 bits each


class Form(Protocol):
    """Signature of every form of the operator."""

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, grid: Grid, text: int, radius: int, scale: float, pooled: int
    ) -> tuple[Tensor, Tensor]: ...


FORMS: dict[str, Form] = {
    "reference": disc_attention_reference,
    "tiled": disc_attention_tiled,
    "op": disc_attention_op,
    "triton": disc_attention_triton,
    "symbolic": disc_attention_symbolic,
}


def not_supported_reasons(form: str, q: Tensor) -> list[str]:
    """Why a form cannot take these operands; empty if it can."""
    reasons = []
    if form == "triton" and q.dtype == torch.float64:
        reasons.append("the kernel computes in float16, bfloat16 and float32, not in float64")
    if form == "symbolic" and not torch.onnx.is_in_onnx_export():
        reasons.append("symbolic nodes exist only while a network is exported")
    return reasons


def disc_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Grid,
    text: int,
    radius: int,
    scale: float | None = None,
    pooled: int = 0,
    form: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention in which text sees everything and the picture sees the text, a disc and the pooled keys.

    Tokens are `text` text tokens, then H*W of the picture, row-major: n in all. A query of the picture sees the keys at a distance
    strictly below `radius`, all text keys and all pooled keys; a text query sees all n tokens and no pooled key.

    Args:
        q: (B, n, h, D).
        k: (B, n + pooled, h, D), pooled keys last.
        v: (B, n + pooled, h, D).
        grid: (H, W) in tokens; any, each up to 32767.
        text: number of text tokens, 0 or more.
        radius: of the disc in tokens, 1 or more.
        scale: of the logits; None: D^-1/2.
        pooled: number of pooled keys.
        form: a key of `FORMS`; None takes the operator, or the symbolic node while a network is exported.

    Returns:
        out (B, n, h, D) in the dtype of `v`; lse (B, h, n), float32 (float64 for float64), natural logarithm of the sum of the
        exponentials of the scaled logits.

    Raises:
        UsageError: shapes that do not belong together, a size out of range, or a form that does not exist or does not fit.
    """
    height, width = grid
    heads, dim = q.shape[2:] if q.dim() == 4 else (0, 0)
    n = text + height * width
    if q.shape != (q.shape[0], n, heads, dim) or k.shape != (q.shape[0], n + pooled, heads, dim) or k.shape != v.shape:
        raise UsageError(
            f"shapes do not belong together: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}, {text} text tokens, grid"
            f" {height}x{width}, {pooled} pooled; expected q (B, {n}, heads, D), k and v (B, {n + pooled}, heads, D)"
        )
    exporting = torch.onnx.is_in_onnx_export()  # then sides are symbols, which comparisons would bound
    if not exporting and (
        min(height, width, radius) < 1 or text < 0 or pooled < 0 or max(height, width) > _LARGEST_SIDE
    ):
        raise UsageError(
            f"grid {height}x{width}, {text} text tokens, radius {radius}, {pooled} pooled: sides must be 1 to {_LARGEST_SIDE}, the"
            " radius 1 or more, the others 0 or more"
        )
    form = form or ("symbolic" if exporting else "op")
    if form not in FORMS:
        raise UsageError(f"unknown form {form!r} of disc_attention: choose one of {', '.join(FORMS)}")
    if reasons := not_supported_reasons(form, q):
        raise UsageError(f"form {form!r} of disc_attention: {'; '.join(reasons)}")
    return FORMS[form](q, k, v, grid, text, radius, dim**-0.5 if scale is None else scale, pooled)


def pool_tokens(x: Tensor, weight: Tensor, grid: Grid, text: int) -> Tensor:
    """Weighted sums of f x f neighbouring tokens of the picture: the keys and values of CLEAR's down-sampled variants.

    Args, result: see `flashrib.model.attention.disc.reference.pool_tokens`.

    Raises:
        UsageError: a side of the grid is no multiple of f, or the weight is not square.
    """
    factor = round(weight.numel() ** 0.5)
    if factor * factor != weight.numel() or grid[0] % factor or grid[1] % factor:
        raise UsageError(
            f"grid {grid[0]}x{grid[1]} cannot be pooled with {weight.numel()} weights: both sides must be multiples of their root"
            f" ({16 * factor} pixels)"
        )
    if torch.onnx.is_in_onnx_export():
        return pool_tokens_symbolic(x, weight, grid, text)
    return pool_tokens_reference(x, weight, grid, text)
