"""The operator of Fibottention, `offset_attention`: in each head a token sees the class token and the tokens at given distances only.

`reference.py` is the definition; `gather.py` needs memory linear in the tokens and runs anywhere, `kernel.py` is for CUDA GPUs. A form is
added by a row of `FORMS`; networks never choose one themselves.
"""

import importlib.util
from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.attention.fibonacci.gather import offset_attention_gather
from flashrib.model.attention.fibonacci.reference import offset_attention_reference
from flashrib.model.attention.fibonacci.symbolic import offset_attention_symbolic
from flashrib.runtime.errors import UsageError

MaskMode = Literal["neg_inf", "zero_logit", "dense"]
MASK_MODES: tuple[MaskMode, ...] = get_args(MaskMode)


class Form(Protocol):
    """Signature of every form of the operator."""

    def __call__(self, qkv: Tensor, offsets: Tensor, num_heads: int, mask_mode: str) -> Tensor: ...


def _triton(qkv: Tensor, offsets: Tensor, num_heads: int, mask_mode: str) -> Tensor:
    from flashrib.model.attention.fibonacci.op import offset_attention_triton

    return offset_attention_triton(qkv, offsets, num_heads, mask_mode)


FORMS: dict[str, Form] = {
    "reference": offset_attention_reference,
    "gather": offset_attention_gather,
    "symbolic": offset_attention_symbolic,
    "triton": _triton,
}


def not_supported_reasons(form: str, qkv: Tensor) -> list[str]:
    """Say why a form cannot take this input; empty where it can."""
    reasons = []
    if form == "symbolic" and not torch.onnx.is_in_onnx_export():
        reasons.append("symbolic makes nodes of an ONNX graph and runs only while a network is exported")
    if form == "triton":
        if not importlib.util.find_spec("triton"):
            reasons.append("the package triton is not installed")
        if not qkv.is_cuda:
            reasons.append(f"the kernel runs on CUDA GPUs, the input is on {qkv.device}")
        if qkv.dtype == torch.float64:
            reasons.append("the kernel computes in float32, the input is float64")
        if qkv.shape[1:].numel() >= 2**31:
            reasons.append(
                f"the kernel takes fewer than 2^31 values per picture, the input has {qkv.shape[1:].numel()}"
            )
    return reasons


def automatic_form(qkv: Tensor) -> str:
    """Form that `offset_attention` takes for an input: the fastest that its device, its dtype and what is installed allow."""
    if torch.onnx.is_in_onnx_export():
        return "symbolic"
    return "gather" if not_supported_reasons("triton", qkv) else "triton"


def offset_attention(
    qkv: Tensor, offsets: Tensor, num_heads: int, mask_mode: str = "neg_inf", form: str | None = None
) -> Tensor:
    """Attention in which a patch token sees the class token and the patches at its head's offsets, on both sides.

    logits = <q, k>, no further scale: D^-1/2 belongs into the weights. Token 0 is the class token; it sees all and is seen by all. Patch p
    sees the patches p - o and p + o for each offset o of the head, where these exist; offset 0 is the patch itself, once.

    Args:
        qkv: (B, N+1, 3*heads*D), channel = s*heads*D + head*D + d with s = 0, 1, 2 for q, k, v.
        offsets: (heads, M) int32, each row ascending and without repetition, filled up with numbers of at least N.
        num_heads: heads.
        mask_mode: what becomes of keys that are left out: "neg_inf" gives them weight 0, "zero_logit" logit 0 (so weight e^0 before
            normalisation, as the official code does), "dense" leaves none out and does not read `offsets`.
        form: a key of `FORMS`; None takes `automatic_form`.

    Returns:
        (B, N+1, heads*D), same dtype as `qkv`.

    Raises:
        UsageError: no such form or mask, or shapes that do not belong together.
    """
    if qkv.ndim != 3 or qkv.shape[-1] % (3 * num_heads) or offsets.ndim != 2 or offsets.shape[0] != num_heads:
        raise UsageError(
            f"shapes do not belong together: qkv {tuple(qkv.shape)}, offsets {tuple(offsets.shape)}, {num_heads} heads;"
            " expected (B, N+1, 3*heads*D) and (heads, M)"
        )
    if qkv.shape[1] < 2:
        raise UsageError("offset_attention needs a class token and at least one patch")
    if mask_mode not in MASK_MODES:
        raise UsageError(f"unknown mask mode {mask_mode!r} of offset_attention: choose one of {', '.join(MASK_MODES)}")
    form = form or automatic_form(qkv)
    if form not in FORMS:
        raise UsageError(f"unknown form {form!r} of offset_attention: choose one of {', '.join(FORMS)}")
    if mask_mode == "dense" and form != "reference":
        return _dense(qkv, num_heads)
    if reasons := not_supported_reasons(form, qkv):
        raise UsageError(f"offset_attention cannot take the form {form!r}: {'; '.join(reasons)}")
    return FORMS[form](qkv, offsets, num_heads, mask_mode)


def _dense(qkv: Tensor, num_heads: int) -> Tensor:
    """Plain attention of a ViT, through PyTorch's fused one."""
    q, k, v = qkv.view(*qkv.shape[:2], 3, num_heads, -1).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2).flatten(2)
