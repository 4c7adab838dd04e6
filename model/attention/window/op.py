"""`window_attention` on a CUDA GPU through the fused Triton kernels, as operators of PyTorch.

Registered as `flashrib::window_attention`, so that `torch.compile` and AOTInductor see through it: they compile the kernel into what
they make. Where gradients are wanted, `flashrib::window_attention_with_lse` keeps the logarithm of the sums of the weights as well, and
`flashrib::window_attention_backward` makes the gradients from it, in `backward.py`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from flashrib.model.attention.window.backward import window_attention_backward
from flashrib.model.attention.window.kernel import window_attention_kernel
from flashrib.model.attention.window.launch import capability, configured, constants, number_of_windows
from flashrib.model.attention.window.tuning import blocks_for, programs, repeat_stages
from flashrib.model.config import Window
from flashrib.model.operators import triton_op, wrap_triton


def _forward(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    gate: Tensor | None,
    qkv_bias: Tensor | None,
    gate_bias: Tensor | None,
    window: list[int],
    heads: int,
    shift: list[int],
    lse: Tensor | None,
) -> Tensor:
    batch, height, width, channels = qkv.shape
    fixed = constants(qkv, pos_q, pos_k, window, heads, shift)
    tokens = window[0] * window[1]
    target = capability(qkv.device)
    blocks = blocks_for(target, fixed["D"], fixed["R"], tokens, qkv.element_size())
    out = qkv.new_empty(batch, height, width, channels // 3)
    grid = (programs(number_of_windows(qkv, window), heads, tokens, blocks),)
    wrap_triton(configured(window_attention_kernel, blocks))[grid](
        qkv.contiguous(),
        pos_q.to(qkv.dtype).contiguous(),
        pos_k.to(qkv.dtype).contiguous(),
        None if gate is None else gate.contiguous(),
        None if qkv_bias is None else qkv_bias.float(),
        None if gate_bias is None else gate_bias.float(),
        height,
        width,
        out,
        lse,
        REPEAT_STAGES=repeat_stages(target),
        **fixed,
    )
    return out


@triton_op("flashrib::window_attention")
def _window_attention(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    gate: Tensor | None,
    qkv_bias: Tensor | None,
    gate_bias: Tensor | None,
    window: list[int],
    num_heads: int,
    shift: list[int],
) -> Tensor:
    return _forward(qkv, pos_q, pos_k, gate, qkv_bias, gate_bias, window, num_heads, shift, None)


@triton_op("flashrib::window_attention_with_lse")
def _window_attention_with_lse(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    gate: Tensor | None,
    qkv_bias: Tensor | None,
    gate_bias: Tensor | None,
    window: list[int],
    num_heads: int,
    shift: list[int],
) -> tuple[Tensor, Tensor]:
    batch, height, width, _ = qkv.shape
    lse = qkv.new_empty(batch, num_heads, height, width, dtype=torch.float32)
    return _forward(qkv, pos_q, pos_k, gate, qkv_bias, gate_bias, window, num_heads, shift, lse), lse


def _save(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, window, num_heads, shift = inputs
    ctx.save_for_backward(*output, *tensors)
    ctx.set_materialize_grads(False)  # nobody wants a gradient of the logarithms
    ctx.layer = (list(window), num_heads, list(shift))  # type: ignore[attr-defined]  # a context takes any attribute


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 9
    out, lse, qkv, pos_q, pos_k, gate, qkv_bias, gate_bias = ctx.saved_tensors
    d_qkv, d_pos_q, d_pos_k, d_gate = window_attention_backward(
        grad, out, lse, qkv, pos_q, pos_k, gate, qkv_bias, gate_bias, *ctx.layer
    )

    def of_bias(bias: Tensor | None, d_map: Tensor) -> Tensor | None:
        return None if bias is None else d_map.sum((0, 1, 2), dtype=torch.float32).to(bias.dtype)

    d_bias = of_bias(qkv_bias, d_qkv)
    if d_bias is not None:  # the bias of k changes no result
        inner = d_bias.numel() // 3
        d_bias = torch.cat([d_bias[:inner], torch.zeros_like(d_bias[:inner]), d_bias[2 * inner :]])
    return (
        d_qkv,
        d_pos_q.to(pos_q.dtype),
        d_pos_k.to(pos_k.dtype),
        None if gate is None else d_gate,
        d_bias,
        None if gate is None else of_bias(gate_bias, d_gate),
        None,
        None,
        None,
    )


torch.library.register_autograd("flashrib::window_attention_with_lse", _backward, setup_context=_save)


def window_attention_triton(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    window: Window,
    num_heads: int,
    shift: Window,
    gate: Tensor | None = None,
    qkv_bias: Tensor | None = None,
    gate_bias: Tensor | None = None,
) -> Tensor:
    """See `flashrib.model.attention.window.window_attention`; on a CUDA GPU, or on the CPU through Triton's interpreter.

    Products of a library are faster without a bias, so the kernel can add it: `qkv_bias` (3*heads*D) to `qkv`, `gate_bias` (heads*D) to
    `gate`. The bias of k changes no result and is not read. Products of float32 are done in three TF32 products each, or in one where
    PyTorch's own may (`torch.backends.cuda.matmul.fp32_precision`).
    """
    tensors = (qkv, pos_q, pos_k, gate, qkv_bias, gate_bias)
    layer = (list(window), num_heads, list(shift))
    out: Tensor
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        out, _ = _window_attention_with_lse(*tensors, *layer)
    else:
        out = _window_attention(*tensors, *layer)
    return out
