"""`offset_attention` as an operator of PyTorch: through the fused Triton kernel on a CUDA GPU, through the gather form on the CPU.

Registered as `flashrib::offset_attention`, so that `torch.compile` and AOTInductor see through it: they compile the kernel into what they
make. Differentiable: the backward pass recomputes the layer in its gather form, in linear memory.
"""

import functools
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import FunctionCtx

from flashrib.model.attention.fibonacci import kernel as kernels
from flashrib.model.attention.fibonacci.gather import offset_attention_gather
from flashrib.model.attention.fibonacci.tuning import (
    CLASS_BLOCK,
    CLASS_KEYS,
    CLASS_STAGES,
    CLASS_WARPS,
    MERGE_BLOCK,
    MERGE_WARPS,
    plan_of,
    power_of_two,
    span_of,
)
from flashrib.model.operators import triton_op, wrap_triton


@functools.cache
def _with_warps(kernel: Any, warps: int) -> Any:
    """The kernel with its number of warps, as the only configuration of an autotuned kernel: PyTorch takes it along when it compiles."""
    return triton.autotune([triton.Config({}, num_warps=warps)], key=[])(kernel)


@triton_op("flashrib::offset_attention")
def _offset_attention(qkv: Tensor, offsets: Tensor, num_heads: int, zero_logit: bool) -> Tensor:
    batch, tokens, channels = qkv.shape
    head_dim = channels // (3 * num_heads)
    padded = power_of_two(head_dim)
    plan = plan_of(tokens, head_dim, zero_logit, qkv.element_size())
    qkv = qkv.contiguous()
    out = qkv.new_empty(batch, tokens, channels // 3)
    widths = {"HEADS": num_heads, "D": head_dim, "DP": padded}
    parts, part_sums, sums = None, None, None
    if plan.first != "whole":
        parts = qkv.new_empty((batch, num_heads, plan.parts, 2 + padded), dtype=torch.float32)
    if plan.first == "none":
        part_sums = qkv.new_empty((batch, num_heads, plan.parts, padded), dtype=torch.float32)
        sums = qkv.new_empty((batch, channels // 3), dtype=torch.float32)
        wrap_triton(_with_warps(kernels.class_parts_kernel, CLASS_WARPS))[(batch * num_heads * plan.parts,)](
            qkv, parts, part_sums, tokens, **widths, BN=CLASS_BLOCK, STAGES=CLASS_STAGES, KEYS=CLASS_KEYS
        )

    def merge() -> None:
        wrap_triton(_with_warps(kernels.merge_kernel, MERGE_WARPS))[(batch * num_heads,)](
            parts, part_sums, sums, out, tokens, plan.parts, **widths, BN=MERGE_BLOCK
        )

    if plan.first == "none":
        merge()
    wrap_triton(_with_warps(kernels.offset_attention_kernel, plan.tiles.warps))[(batch * num_heads * plan.chunks,)](
        qkv,
        offsets,
        sums,
        parts,
        tokens,
        span_of(plan.tiles),
        out,
        **widths,
        M=offsets.shape[1],
        MP=power_of_two(offsets.shape[1], 1),
        BM=plan.tiles.queries,
        ZERO=zero_logit,
        FIRST=plan.first,
        PACKED=qkv.element_size() == 2,
    )
    if plan.first == "part":
        merge()
    return out


def _save(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
    qkv, offsets, num_heads, zero_logit = inputs
    ctx.save_for_backward(qkv, offsets)
    ctx.layer = (num_heads, "zero_logit" if zero_logit else "neg_inf")  # type: ignore[attr-defined]  # a context takes any attribute


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Gradient by recomputation; nothing of the size of the scores is ever stored."""
    saved, offsets = ctx.saved_tensors
    with torch.enable_grad():
        qkv = saved.detach().requires_grad_()
        out = offset_attention_gather(qkv, offsets, *ctx.layer)
        (found,) = torch.autograd.grad(out, qkv, gradient)
    return found, None, None, None


torch.library.register_autograd("flashrib::offset_attention", _backward, setup_context=_save)


def offset_attention_triton(qkv: Tensor, offsets: Tensor, num_heads: int, mask_mode: str) -> Tensor:
    """See `flashrib.model.attention.fibonacci.offset_attention`; on a CUDA GPU, or on the CPU through Triton's interpreter."""
    out: Tensor = torch.ops.flashrib.offset_attention(qkv, offsets, num_heads, mask_mode == "zero_logit")
    return out
