"""The fused kernel on the CPU, through Triton's interpreter; `test_kernel.py` runs this file, since Triton must be told first.

Errors are ratios of the RMS of the definition in float64 on the same (rounded) inputs, and at most twice those of the plain definition in
the same dtype, plus a rounding floor.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from flashrib.model.attention.fibonacci import FORMS, Form, backward, offset_attention, op, tuning
from flashrib.model.attention.fibonacci import kernel as kernels
from flashrib.model.attention.fibonacci.tuning import Tiles
from tests.model.attention.fibonacci.cases import LAYERS, layer
from tests.model.interpreter import language_patched_once

__all__ = ["language_patched_once"]  # a fixture that every test here takes

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, from the interpreter: exp2 that underflows

# One program of a head; several, whose parts of the class token's row are merged; the class token's row in launches of its own.
CUTS = {"whole": Tiles(16, 8, 1), "parts": Tiles(16, 1, 1), "apart": Tiles(16, 2, 1, apart=True)}
DTYPES = {"float32": (torch.float32, 2e-6), "float16": (torch.float16, 1e-3), "bfloat16": (torch.bfloat16, 8e-3)}
MASKED = ["neg_inf", "zero_logit"]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not write stays NaN."""

    def poisoned(self: Tensor, *size: Any, **options: Any) -> Tensor:
        flat = size if size and isinstance(size[0], int) else tuple(size[0])
        options = {"dtype": self.dtype, **options}
        return self.new_full(flat, float("nan") if options["dtype"].is_floating_point else -1, **options)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
    monkeypatch.setattr(torch, "empty_like", lambda x: x.new_empty(x.shape))


@pytest.fixture(autouse=True)
def mended_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.6's interpreter computes with the bit patterns of bfloat16, and takes no bounds of loops from NumPy 2.5's arrays."""
    builder, patch = interpreter.InterpreterBuilder, interpreter._patch_lang_tensor
    product, binary = builder.create_dot, builder.binary_op

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return product(self, widened(a), widened(b), *rest)

    def binary_op(self: Any, a: Any, b: Any, function: Any) -> Any:
        if a.dtype.scalar != tl.bfloat16:
            return binary(self, a, b, function)
        result = torch.from_numpy(function(widened(a).data, widened(b).data)).bfloat16()
        return interpreter.TensorHandle(result.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    def with_index(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(builder, "create_dot", create_dot)
    monkeypatch.setattr(builder, "binary_op", binary_op)
    monkeypatch.setattr(interpreter, "_patch_lang_tensor", with_index)


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def take(name: str) -> None:
        monkeypatch.setattr(tuning, "tiles_for", lambda *_: CUTS[name])
        for module in (op, tuning):
            monkeypatch.setattr(module, "CLASS_BLOCK", 16)
            monkeypatch.setattr(module, "CLASS_KEYS", 32)

    return take


def error(out: Tensor, wanted: Tensor) -> float:
    return ((out.double() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()).item()


def check(name: str, mode: str, dtype: torch.dtype, floor: float) -> None:
    qkv, offsets, heads = layer(name)
    rounded = qkv.to(dtype)
    wanted = offset_attention(rounded.double(), offsets, heads, mode, form="reference")
    plain = offset_attention(rounded, offsets, heads, mode, form="reference")
    out = torch.ops.flashrib.offset_attention(rounded, offsets, heads, mode == "zero_logit")
    assert out.dtype == dtype
    assert error(out, wanted) <= 2 * error(plain, wanted) + floor


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, cut: Callable[[str], None]) -> None:
    cut("parts")
    check(name, "neg_inf", torch.float32, 2e-6)


@pytest.mark.parametrize("mode", MASKED)
@pytest.mark.parametrize("named", CUTS)
def test_cuts(named: str, mode: str, cut: Callable[[str], None]) -> None:
    cut(named)
    check("modified", mode, torch.float32, 2e-6)


@pytest.mark.parametrize("mode", MASKED)
@pytest.mark.parametrize("named", DTYPES)
def test_dtypes(named: str, mode: str, cut: Callable[[str], None]) -> None:
    cut("parts")
    check("grid-7", mode, *DTYPES[named])


def test_weighted_values_stay_within_float16(cut: Callable[[str], None]) -> None:
    cut("parts")
    qkv, offsets, heads = layer("grid-7")
    qkv.chunk(3, dim=-1)[2].fill_(60000.0)
    out = torch.ops.flashrib.offset_attention(qkv.half(), offsets, heads, False)
    assert torch.allclose(
        out.float(), torch.tensor(60000.0), rtol=2e-3
    )  # two weighted values together would be infinite


@pytest.mark.parametrize(("first", "mode"), [("own", "neg_inf"), ("whole", "zero_logit")])
def test_one_launch(first: str, mode: str) -> None:
    """As a plugin is launched: the class token's row in programs of its own, or every program with a whole head."""
    qkv, offsets, heads = layer("modified")
    batch, tokens, channels = qkv.shape
    wanted = offset_attention(qkv, offsets, heads, mode, form="reference")
    out = qkv.float().new_empty(batch, tokens, channels // 3)
    span = 16 if first == "own" else 1 << 20
    programs = batch * heads * (-(-(tokens - 1) // span) + (first == "own"))
    kernels.offset_attention_kernel[(programs,)](
        *(qkv.float(), offsets, None, None, tokens, span, out, None),
        HEADS=heads,
        D=16,
        DP=16,
        M=offsets.shape[1],
        MP=8,
        BM=16,
        ZERO=mode == "zero_logit",
        FIRST=first,
        PACKED=False,
    )
    assert error(out, wanted) <= 2e-6


def gradients(form: Form, qkv: Tensor, offsets: Tensor, heads: int, mode: str) -> tuple[Tensor, Tensor]:
    """Result and gradient of qkv."""
    x = qkv.clone().requires_grad_()
    out = form(x, offsets, heads, mode)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(qkv.dtype)
    (found,) = torch.autograd.grad(out, x, weights.to(out.dtype))
    return out.detach(), found


def check_gradients(qkv: Tensor, offsets: Tensor, heads: int, mode: str, floor: float) -> None:
    """Of each of q, k and v, of the patches and of the class token."""
    exact, plain = (gradients(FORMS["reference"], x, offsets, heads, mode) for x in (qkv.double(), qkv))
    out, found = gradients(op.offset_attention_triton, qkv, offsets, heads, mode)
    assert found.dtype == qkv.dtype
    assert error(out, exact[0]) <= 2 * error(plain[0], exact[0]) + floor
    for ours, theirs, wanted in zip(*(x.chunk(3, dim=-1) for x in (found, plain[1], exact[1])), strict=True):
        for tokens in (slice(0, 1), slice(1, None)):
            bound = 2 * error(theirs[:, tokens], wanted[:, tokens]) + floor
            assert error(ours[:, tokens], wanted[:, tokens]) <= bound


@pytest.mark.parametrize(
    ("name", "mode"), [*((name, "zero_logit") for name in LAYERS), ("modified", "neg_inf"), ("one-head", "neg_inf")]
)
def test_gradients_of_layers(name: str, mode: str, cut: Callable[[str], None]) -> None:
    cut("parts")
    qkv, offsets, heads = layer(name)
    check_gradients(qkv.float(), offsets, heads, mode, 2e-6)


@pytest.mark.parametrize(("named", "mode"), [("whole", "zero_logit"), ("whole", "neg_inf"), ("apart", "neg_inf")])
def test_gradients_of_cuts(named: str, mode: str, cut: Callable[[str], None]) -> None:
    cut(named)
    qkv, offsets, heads = layer("modified")
    check_gradients(qkv[:1].float(), offsets, heads, mode, 2e-6)


@pytest.mark.parametrize("mode", MASKED)
@pytest.mark.parametrize("named", DTYPES)
def test_gradients_of_dtypes(named: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs of both kernels, the last ones with tokens beyond the end."""
    monkeypatch.setattr(backward, "backward_rows", lambda *_: (32, 16))
    dtype, floor = DTYPES[named]
    qkv, offsets, heads = layer("grid-7")
    check_gradients(qkv[:1].to(dtype), offsets, heads, mode, floor)


@pytest.mark.parametrize("width", [64, 80, 128])
def test_gradients_of_wide_heads(width: int) -> None:
    offsets = torch.tensor([[0, 2, 5]], dtype=torch.int32)
    qkv = torch.randn(1, 20, 3 * width, generator=torch.Generator().manual_seed(width))
    qkv[..., :width] *= width**-0.5
    check_gradients(qkv.half(), offsets, 1, "zero_logit", 1e-3)


@pytest.mark.parametrize("mode", MASKED)
def test_gradients_of_large_logits(mode: str) -> None:
    """e^300 leaves float32, and e^-300 is 0. Gradients of logits are next to nothing here, so the error is one of the whole gradient."""
    qkv, offsets, heads = layer("grid-7")
    queries, keys, _ = qkv[:1].chunk(3, dim=-1)
    queries.fill_(300 / 16)
    keys.fill_(1.0)
    keys[:, ::2] *= -1
    _, found = gradients(op.offset_attention_triton, qkv[:1].float(), offsets, heads, mode)
    _, exact = gradients(FORMS["reference"], qkv[:1], offsets, heads, mode)
    assert error(found, exact) <= 2e-4


def test_no_logarithms_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, offsets, heads = layer("two-patches")
    seen = []
    monkeypatch.setattr(op, "_forward", lambda *arguments: seen.append(arguments[-1]) or qkv.float())
    op.offset_attention_triton(qkv.float(), offsets, heads, "neg_inf")
    with torch.no_grad():
        op.offset_attention_triton(qkv.float().requires_grad_(), offsets, heads, "neg_inf")
    assert seen == [None, None]
