"""`offset_attention` on a CUDA GPU through the fused Triton kernels, as operators of PyTorch.

Registered as `flashrib::offset_attention`, so that `torch.compile` and AOTInductor see through it: they compile the kernel into what they
make. Where gradients are wanted, `flashrib::offset_attention_with_lse` keeps the logarithm of the sums of the weights as well, and
`flashrib::offset_attention_backward` makes the gradients from it, in `backward.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from flashrib.model.attention.fibonacci import kernel as kernels
from flashrib.model.attention.fibonacci.backward import offset_attention_backward
from flashrib.model.attention.fibonacci.launch import with_warps
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


def _forward(qkv: Tensor, offsets: Tensor, num_heads: int, zero_logit: bool, lse: Tensor | None) -> Tensor:
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
        wrap_triton(with_warps(kernels.class_parts_kernel, CLASS_WARPS))[(batch * num_heads * plan.parts,)](
            qkv, parts, part_sums, tokens, **widths, BN=CLASS_BLOCK, STAGES=CLASS_STAGES, KEYS=CLASS_KEYS
        )

    def merge() -> None:
        wrap_triton(with_warps(kernels.merge_kernel, MERGE_WARPS))[(batch * num_heads,)](
            parts, part_sums, sums, out, lse, tokens, plan.parts, **widths, BN=MERGE_BLOCK
        )

    if plan.first == "none":
        merge()
    wrap_triton(with_warps(kernels.offset_attention_kernel, plan.tiles.warps))[(batch * num_heads * plan.chunks,)](
        qkv,
        offsets,
        sums,
        parts,
        tokens,
        span_of(plan.tiles),
        out,
        lse,
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


@triton_op("flashrib::offset_attention")
def _offset_attention(qkv: Tensor, offsets: Tensor, num_heads: int, zero_logit: bool) -> Tensor:
    return _forward(qkv, offsets, num_heads, zero_logit, None)


@triton_op("flashrib::offset_attention_with_lse")
def _offset_attention_with_lse(qkv: Tensor, offsets: Tensor, num_heads: int, zero_logit: bool) -> tuple[Tensor, Tensor]:
    lse = qkv.new_empty(qkv.shape[0], num_heads, qkv.shape[1], dtype=torch.float32)
    return _forward(qkv, offsets, num_heads, zero_logit, lse), lse


def _save(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, offsets, num_heads, zero_logit = inputs
    ctx.save_for_backward(*output, qkv, offsets)
    ctx.set_materialize_grads(False)  # nobody wants a gradient of the logarithms
    ctx.layer = (num_heads, zero_logit)  # type: ignore[attr-defined]  # a context takes any attribute


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    found = None if grad is None else offset_attention_backward(grad, *ctx.saved_tensors, *ctx.layer)
    return found, None, None, None


torch.library.register_autograd("flashrib::offset_attention_with_lse", _backward, setup_context=_save)


def offset_attention_triton(qkv: Tensor, offsets: Tensor, num_heads: int, mask_mode: str) -> Tensor:
    """See `flashrib.model.attention.fibonacci.offset_attention`; on a CUDA GPU, or on the CPU through Triton's interpreter."""
    layer = (qkv, offsets, num_heads, mask_mode == "zero_logit")
    out: Tensor
    if torch.is_grad_enabled() and qkv.requires_grad:
        out, _ = _offset_attention_with_lse(*layer)
    else:
        out = _offset_attention(*layer)
    return out
