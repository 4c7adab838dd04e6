"""Gradients of `window_attention` on a CUDA GPU: launches of the kernels of `backward_kernel.py`, and what remains to be added up.

Registered as `flashrib::window_attention_backward`, which `torch.compile` sees through.
"""

import torch
from torch import Tensor

from flashrib.model.attention.window import backward_kernel as kernels
from flashrib.model.attention.window.geometry import fold_reflection, padded_length
from flashrib.model.attention.window.launch import capability, configured, constants, number_of_windows
from flashrib.model.attention.window.tuning import backward_blocks_for
from flashrib.model.operators import triton_op, wrap_triton
from flashrib.model.sizes import ceil_div

PIXELS = 128  # of a program of the first kernel
PROGRAMS = 1056  # wanted of a launch, 8 for each multiprocessor of an H100
MOST_WINDOWS = 16  # that a program goes through


def _group(windows: int, programs_of_a_window: int, padded: bool) -> int:
    """Windows that a program goes through: as many as leave the device enough programs."""
    return 1 if padded else max(1, min(MOST_WINDOWS, windows * programs_of_a_window // PROGRAMS))


@triton_op("flashrib::window_attention_backward")
def window_attention_backward(
    grad: Tensor,
    out: Tensor,
    lse: Tensor,
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    gate: Tensor | None,
    qkv_bias: Tensor | None,
    gate_bias: Tensor | None,
    window: list[int],
    num_heads: int,
    shift: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of qkv, pos_q and pos_k (both float32) and of the gate (no elements without one)."""
    batch, height, width, channels = qkv.shape
    inner, (wh, ww) = channels // 3, window
    tokens, windows = wh * ww, number_of_windows(qkv, window)
    padded = height % wh != 0 or width % ww != 0
    fixed = constants(qkv, pos_q, pos_k, window, num_heads, shift)
    qkv, grad = qkv.contiguous(), grad.to(qkv.dtype).contiguous()
    codes_q, codes_k = (codes.to(qkv.dtype).contiguous() for codes in (pos_q, pos_k))
    query_bias = None if qkv_bias is None else qkv_bias[:inner].float()
    value_bias = None if qkv_bias is None else qkv_bias[2 * inner :].float().contiguous()

    delta = torch.empty_like(lse)
    scaled = grad if gate is None else torch.empty_like(grad)
    d_gate = grad.new_empty(0) if gate is None else torch.empty_like(grad)
    wrap_triton(kernels.prepare_kernel)[(-(-height * width // PIXELS), num_heads, batch)](
        grad,
        out.contiguous(),
        None if gate is None else gate.contiguous(),
        None if gate_bias is None else gate_bias.float(),
        value_bias,
        height * width,
        scaled,
        d_gate,
        delta,
        HEADS=num_heads,
        D=fixed["D"],
        DP=fixed["DP"],
        BP=PIXELS,
    )

    for_keys, for_queries = backward_blocks_for(
        capability(qkv.device), fixed["D"], fixed["R"], tokens, qkv.element_size()
    )
    d_qkv = torch.empty_like(qkv)
    size = (padded_length(height, wh), padded_length(width, ww), 2 * inner) if padded else (0, 0, 0)
    d_mirrored = qkv.new_empty(batch, *size, dtype=torch.float32)
    blocks = num_heads * ceil_div(tokens, for_keys.keys)
    group = _group(windows, blocks, False)
    groups = ceil_div(windows, group)
    d_pos_k = qkv.new_empty(groups, *pos_q.shape, dtype=torch.float32)
    operands = (qkv, codes_q, codes_k, scaled, lse, delta, query_bias, height, width, windows, d_qkv)
    wrap_triton(configured(kernels.keys_kernel, for_keys))[(groups * blocks,)](
        *operands, d_mirrored, d_pos_k, **fixed, PADDED=padded, GROUP=group
    )
    blocks = num_heads * ceil_div(tokens, for_queries.queries)
    group = _group(windows, blocks, padded)
    groups = ceil_div(windows, group)
    make = qkv.new_zeros if padded else qkv.new_empty
    d_pos_q = make(groups, *pos_q.shape, dtype=torch.float32)
    wrap_triton(configured(kernels.queries_kernel, for_queries))[(groups * blocks,)](
        *operands, d_pos_q, **fixed, PADDED=padded, GROUP=group
    )

    if padded:
        folded = fold_reflection(fold_reflection(d_mirrored, height, 1), width, 2)
        d_qkv[..., inner:].copy_(folded)
    d_pos_k = d_pos_k.sum((0, 1))[None] if fixed["SHARED"] else d_pos_k.sum(0)
    return d_qkv, d_pos_q.sum(0), d_pos_k, d_gate
