"""The one operator that knows windows, `window_attention`, and its forms side by side.

`reference.py` is the definition; `sdpa.py` is the form for every device that PyTorch's fused attention runs on, `fused.py` our kernel
for CUDA GPUs, `flash.py` the `flash-attn` package. A form is added by a row of `FORMS`; networks never choose one themselves.
"""

import importlib.util
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


class Form(Protocol):
    """Signature of every form of the operator."""

    def __call__(
        self, qkv: Tensor, pos_q: Tensor, pos_k: Tensor, window: Window, num_heads: int, shift: Window
    ) -> Tensor: ...


def _triton(qkv: Tensor, pos_q: Tensor, pos_k: Tensor, window: Window, num_heads: int, shift: Window) -> Tensor:
    from flashrib.model.attention.window.op import window_attention_triton

    return window_attention_triton(qkv, pos_q, pos_k, window, num_heads, shift)


FORMS: dict[str, Form] = {
    "reference": window_attention_reference,
    "sdpa": window_attention_sdpa,
    "symbolic": window_attention_symbolic,
    "triton": _triton,
    "flash": window_attention_flash,
}


def automatic_form(qkv: Tensor) -> str:
    """Form that `window_attention` takes for a map: the fastest that its device, its dtype and what is installed allow."""
    if torch.onnx.is_in_onnx_export():
        return "symbolic"
    if not qkv.is_cuda or qkv.dtype == torch.float64:
        return "sdpa"
    if HAS_TRITON:
        return "triton"
    if qkv.dtype != torch.float32 and HAS_FLASH_ATTN:
        return "flash"
    return "sdpa"


def window_attention(
    qkv: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    window: Window,
    num_heads: int,
    shift: Window = (0, 0),
    form: str | None = None,
    gate: Tensor | None = None,
) -> Tensor:
    """Attention within the windows of a map, with a low-rank position bias.

    logits = <q, k> + <pos_q, pos_k>, softmax over the tokens of a window, no further scale: D^-1/2 and R^-1/2 belong into the
    weights and constants. The map is completed to whole windows by reflection at bottom and right inside the operator.

    Args:
        qkv: (B, H, W, 3*heads*D), channels last, channel = s*heads*D + head*D + d with s = 0, 1, 2 for q, k, v; any H and W.
        pos_q: (heads, N, R), N = Wh*Ww, tokens row-major.
        pos_k: (heads, N, R), or (1, N, R) where all heads share it.
        window: (Wh, Ww) in pixels.
        num_heads: heads.
        shift: rows and columns that the completed map is rolled by before it is cut into windows (no mask), and back after.
        form: a key of `FORMS`; None takes `automatic_form`.
        gate: (B, H, W, heads*D), the result is multiplied by its sigmoid; None leaves it.

    Returns:
        (B, H, W, heads*D), same dtype as `qkv`.

    Raises:
        UsageError: no such form, or shapes that do not belong together.
    """
    tokens = window[0] * window[1]
    codes = (num_heads, tokens, pos_q.shape[-1])
    if qkv.shape[-1] % (3 * num_heads) or pos_q.shape != codes or pos_k.shape not in (codes, (1, *codes[1:])):
        raise UsageError(
            f"shapes do not belong together: qkv {tuple(qkv.shape)}, pos_q {tuple(pos_q.shape)}, pos_k {tuple(pos_k.shape)},"
            f" window {window}, {num_heads} heads; expected (B, H, W, 3*heads*D) and twice (heads, {tokens}, R)"
        )
    form = form or automatic_form(qkv)
    if form not in FORMS:
        raise UsageError(f"unknown form {form!r} of window_attention: choose one of {', '.join(FORMS)}")
    if form == "triton":  # the only form that can do the gate on the way
        from flashrib.model.attention.window.op import window_attention_triton

        return window_attention_triton(qkv, pos_q, pos_k, window, num_heads, shift, gate)
    out = FORMS[form](qkv, pos_q, pos_k, window, num_heads, shift)
    return out if gate is None else out * torch.sigmoid(gate)
