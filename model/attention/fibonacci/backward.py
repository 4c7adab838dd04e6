"""Gradient of `offset_attention` on a CUDA GPU: launches of the kernels of `backward_kernel.py`, and what remains to be added up.

Registered as `flashrib::offset_attention_backward`, which `torch.compile` sees through.
"""

import torch
from torch import Tensor

from flashrib.model.attention.fibonacci import backward_kernel as kernels
from flashrib.model.attention.fibonacci.launch import with_warps
from flashrib.model.attention.fibonacci.tuning import BACKWARD_WARPS, backward_rows, power_of_two
from flashrib.model.operators import triton_op, wrap_triton
from flashrib.model.sizes import ceil_div


@triton_op("flashrib::offset_attention_backward")
def offset_attention_backward(
    grad: Tensor, out: Tensor, lse: Tensor, qkv: Tensor, offsets: Tensor, num_heads: int, zero_logit: bool
) -> Tensor:
    """Gradient of qkv, in its dtype; `lse` as `offset_attention_kernel` keeps it, `grad` and `out` (B, N+1, heads*D)."""
    batch, tokens, channels = qkv.shape
    head_dim = channels // (3 * num_heads)
    fixed = {"HEADS": num_heads, "D": head_dim, "DP": power_of_two(head_dim)}
    prepared, owned = backward_rows(tokens, head_dim)
    qkv, grad = qkv.contiguous(), grad.to(qkv.dtype).contiguous()

    delta = torch.empty_like(lse)
    chunks = ceil_div(tokens, prepared)
    rests = qkv.new_empty(chunks, batch, channels // 3, dtype=torch.float32) if zero_logit else None
    wrap_triton(with_warps(kernels.prepare_kernel, BACKWARD_WARPS))[(chunks, num_heads, batch)](
        grad, out.contiguous(), lse, tokens, delta, rests, **fixed, BM=prepared
    )

    d_qkv = torch.empty_like(qkv)
    chunks = ceil_div(tokens - 1, owned)
    d_class = qkv.new_empty(chunks, batch, channels, dtype=torch.float32)
    wrap_triton(with_warps(kernels.patches_kernel, BACKWARD_WARPS))[(batch * num_heads * chunks,)](
        qkv,
        offsets,
        grad,
        lse,
        delta,
        None if rests is None else rests.sum(0),
        tokens,
        d_qkv,
        d_class,
        **fixed,
        M=offsets.shape[1],
        MP=power_of_two(offsets.shape[1], 1),
        BM=owned,
    )
    d_qkv[:, 0] = d_class.sum(0)
    return d_qkv
