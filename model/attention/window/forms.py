"""The forms of `window_attention` as rows of a table: what each one computes with, and why it is passed over for given operands."""

import dataclasses
import importlib.util
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from flashrib.model.attention.window.flash import window_attention_flash
from flashrib.model.attention.window.reference import window_attention_reference
from flashrib.model.attention.window.sdpa import window_attention_sdpa
from flashrib.model.attention.window.symbolic import window_attention_symbolic
from flashrib.model.config import Window
from flashrib.runtime.errors import UsageError

HAS_TRITON, HAS_FLASH_ATTN = (importlib.util.find_spec(name) is not None for name in ("triton", "flash_attn"))


class Function(Protocol):
    """Signature of every form, see `flashrib.model.attention.window.window_attention`."""

    def __call__(
        self,
        qkv: Tensor,
        pos_q: Tensor,
        pos_k: Tensor,
        window: Window,
        num_heads: int,
        shift: Window,
        *,
        qkv_bias: Tensor | None = None,
        gate: Tensor | None = None,
        gate_bias: Tensor | None = None,
    ) -> Tensor: ...


def _triton(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    window: Window,
    num_heads: int,
    shift: Window,
    *,
    qkv_bias: Tensor | None = None,
    gate: Tensor | None = None,
    gate_bias: Tensor | None = None,
) -> Tensor:
    from flashrib.model.attention.window.op import window_attention_triton  # Triton is not everywhere

    return window_attention_triton(
        qkv, pos_q, pos_k, window, num_heads, shift, qkv_bias=qkv_bias, gate=gate, gate_bias=gate_bias
    )


def _symbolic_reasons(qkv: Tensor) -> list[str]:
    return (
        [] if torch.onnx.is_in_onnx_export() else ["it is a node of a graph, only while a network is exported to ONNX"]
    )


def _triton_reasons(qkv: Tensor) -> list[str]:
    reasons = []
    if not HAS_TRITON:
        reasons.append("the package triton is not installed")
    if not qkv.is_cuda:
        reasons.append(f"its kernel is for CUDA GPUs, and qkv is on {qkv.device.type!r}")
    if qkv.dtype == torch.float64:
        reasons.append("its kernel computes in float32, and qkv is float64")
    return reasons


def _flash_reasons(qkv: Tensor) -> list[str]:
    reasons = []
    if not HAS_FLASH_ATTN:
        reasons.append("the package flash-attn is not installed")
    if not qkv.is_cuda:
        reasons.append(f"the package is for GPUs, and qkv is on {qkv.device.type!r}")
    if qkv.dtype not in (torch.float16, torch.bfloat16):
        reasons.append(f"the package computes in 16 bits, and qkv is {qkv.dtype}")
    if torch.is_grad_enabled() and qkv.requires_grad:
        reasons.append("gradients are wanted, and PyTorch's own fused attention is not slower then")
    return reasons


@dataclasses.dataclass(frozen=True)
class Form:
    """A way to compute the operator.

    Attributes:
        function: takes the whole signature of the operator.
        not_supported_reasons: qkv -> why the automatic choice passes this form over; empty where it could be taken.
    """

    function: Function
    not_supported_reasons: Callable[[Tensor], list[str]]


# The automatic choice takes the first one without a reason against it.
FORMS: dict[str, Form] = {
    "symbolic": Form(window_attention_symbolic, _symbolic_reasons),
    "triton": Form(_triton, _triton_reasons),
    "flash": Form(window_attention_flash, _flash_reasons),
    "sdpa": Form(window_attention_sdpa, lambda qkv: []),
    "reference": Form(window_attention_reference, lambda qkv: ["it is the definition, of quadratic memory"]),
}


def automatic_form(qkv: Tensor) -> str:
    """Form that `window_attention` takes for a feature map: the fastest that its device, its dtype and what is installed allow."""
    return next(name for name, form in FORMS.items() if not form.not_supported_reasons(qkv))


def not_supported_reasons(qkv: Tensor, form: str) -> list[str]:
    """Why `window_attention` does not choose `form` for a feature map by itself; empty where it could.

    Raises:
        UsageError: no such form.
    """
    return form_named(form).not_supported_reasons(qkv)


def form_named(name: str) -> Form:
    """Return a row of `FORMS`.

    Raises:
        UsageError: none.
    """
    if name not in FORMS:
        raise UsageError(f"unknown form {name!r} of window_attention: choose one of {', '.join(FORMS)}")
    return FORMS[name]
