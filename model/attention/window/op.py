"""`window_attention` on a CUDA GPU through the fused Triton kernel, as an operator of PyTorch.

Registered as `flashrib::window_attention`, so that `torch.compile` and AOTInductor see through it: they compile the kernel into what
they make. Differentiable: the backward pass recomputes the layer through PyTorch's fused attention, which has one.
"""

import functools
from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.library import triton_op, wrap_triton

from flashrib.model.attention.window.geometry import padded_length
from flashrib.model.attention.window.kernel import window_attention_kernel
from flashrib.model.attention.window.sdpa import window_attention_sdpa
from flashrib.model.attention.window.tuning import Blocks, blocks_for, power_of_two, programs
from flashrib.model.config import Window


@functools.cache
def _kernel(blocks: Blocks) -> Any:
    """The kernel with its block sizes; as the only configuration of an autotuned kernel, since that carries the limit of registers."""
    config = triton.Config(
        {"BM": blocks.queries, "BN": blocks.keys, "STAGES": blocks.stages},
        num_warps=blocks.warps,
        maxnreg=blocks.registers,
    )
    return triton.autotune([config], key=[])(window_attention_kernel)


def _capability(device: torch.device) -> int:
    if device.type != "cuda":
        return 90  # Triton's interpreter on the CPU: any blocks will do
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@triton_op("flashrib::window_attention", mutates_args={})
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
    batch, height, width, channels = qkv.shape
    head_dim, rank = channels // (3 * num_heads), pos_q.shape[-1]
    (wh, ww), (shift_h, shift_w) = window, shift
    padded_h, padded_w = padded_length(height, wh), padded_length(width, ww)
    windows = batch * (padded_h // wh) * (padded_w // ww)
    blocks = blocks_for(_capability(qkv.device), head_dim, rank, wh * ww, qkv.element_size())
    tiny = padded_h - 1 > 2 * (height - 1) or padded_w - 1 > 2 * (width - 1)
    out = qkv.new_empty(batch, height, width, channels // 3)
    wrap_triton(_kernel(blocks))[(programs(windows, num_heads, wh * ww, blocks),)](
        qkv.contiguous(),
        pos_q.to(qkv.dtype).contiguous(),
        pos_k.to(qkv.dtype).contiguous(),
        None if gate is None else gate.contiguous(),
        None if qkv_bias is None else qkv_bias.float(),
        None if gate_bias is None else gate_bias.float(),
        height,
        width,
        out,
        HEADS=num_heads,
        D=head_dim,
        R=rank,
        WH=wh,
        WW=ww,
        SHIFT_H=shift_h,
        SHIFT_W=shift_w,
        DP=power_of_two(head_dim),
        RP=power_of_two(rank),
        TINY=tiny,
        SHARED=pos_k.shape[0] != num_heads,
        PRECISION="tf32x3",
    )
    return out


def _save(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, window, num_heads, shift = inputs
    ctx.save_for_backward(*tensors)
    ctx.layer = (tuple(window), num_heads, tuple(shift))  # type: ignore[attr-defined]  # a context takes any attribute


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients by recomputation; nothing of the size of the scores is ever stored."""
    saved: tuple[Tensor | None, ...] = ctx.saved_tensors
    with torch.enable_grad():
        inputs = [None if x is None else x.detach().requires_grad_() for x in saved]
        qkv, pos_q, pos_k, gate, qkv_bias, gate_bias = inputs
        assert qkv is not None
        assert pos_q is not None
        assert pos_k is not None
        whole = qkv if qkv_bias is None else qkv + qkv_bias.to(qkv.dtype)
        out = window_attention_sdpa(whole, pos_q, pos_k, *ctx.layer)
        if gate is not None:
            out = out * torch.sigmoid(gate if gate_bias is None else gate + gate_bias.to(gate.dtype))
        wanted = [x for x in inputs if x is not None]
        found = iter(torch.autograd.grad(out, wanted, gradient, allow_unused=True))  # a gate's bias without a gate
    return (*(None if x is None else next(found) for x in inputs), None, None, None)


torch.library.register_autograd("flashrib::window_attention", _backward, setup_context=_save)


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
    `gate`. The bias of k changes no result and is not read.
    """
    out: Tensor = torch.ops.flashrib.window_attention(
        qkv, pos_q, pos_k, gate, qkv_bias, gate_bias, list(window), num_heads, list(shift)
    )
    return out
