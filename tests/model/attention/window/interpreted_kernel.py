"""The fused kernel on the CPU, through Triton's interpreter; `test_triton_kernel.py` runs this file, since Triton must be told first.

Errors are ratios of the RMS of the definition in float64 on the same (rounded) inputs, and at most twice those of the plain definition in
the same dtype, plus a rounding floor.
"""

from typing import Any

import numpy as np
import pytest
import torch
import triton.language as tl
from torch import Tensor
from triton.runtime import interpreter

from flashrib.model.attention.window import backward, window_attention
from flashrib.model.attention.window import op as fused
from flashrib.model.attention.window.tuning import Blocks
from tests.model.interpreter import language_patched_once
from tests.official import seeded

__all__ = ["language_patched_once"]  # a fixture that every test here takes

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # NumPy's, from the interpreter: exp2 and casts that overflow

SMALL = Blocks(16, 16, 1, 1)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# batch, height, width, heads, D, R, window, shift
GEOMETRIES = {
    "whole-windows": (1, 8, 12, 2, 16, 3, (4, 4), (0, 0)),
    "whole-windows-shifted": (2, 8, 8, 1, 16, 3, (4, 4), (2, 2)),
    "odd-sizes": (2, 9, 11, 1, 16, 7, (4, 4), (0, 0)),
    "odd-sizes-shifted": (1, 9, 11, 2, 16, 7, (4, 4), (2, 2)),
    "oblong-shifted": (1, 7, 13, 1, 16, 5, (4, 6), (2, 3)),
    "tokens-no-multiple-of-blocks": (1, 11, 6, 1, 16, 3, (5, 5), (0, 0)),
    "tokens-no-multiple-of-blocks-shifted": (1, 8, 7, 1, 16, 3, (5, 7), (2, 3)),
    "tokens-less-than-a-block": (1, 7, 6, 1, 16, 3, (3, 5), (1, 2)),
    "window-larger-than-map": (1, 5, 7, 2, 16, 3, (8, 8), (0, 0)),
    "window-larger-than-map-shifted": (1, 5, 7, 1, 16, 3, (8, 8), (4, 4)),
    "window-much-larger-than-map": (1, 3, 2, 1, 16, 3, (8, 12), (3, 5)),
    "one-row": (1, 1, 9, 1, 16, 3, (4, 6), (0, 0)),
    "one-pixel": (1, 1, 1, 1, 16, 3, (4, 4), (2, 2)),
}

ALIKE = (
    "odd-sizes",
    "oblong-shifted",
    "tokens-no-multiple-of-blocks",
    "window-larger-than-map",
    "one-pixel",
)  # as to gradients

# D, R
WIDTHS = [(16, 24), (30, 7), (30, 18), (30, 34), (32, 32), (64, 16)]


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel does not write stays NaN."""

    def poisoned(self: Tensor, *size: int, **options: Any) -> Tensor:
        flat = size if size and isinstance(size[0], int) else tuple(size[0])
        return self.new_full(flat, float("nan") if self.is_floating_point() else -1, **options)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.6's interpreter multiplies the bit patterns of bfloat16; products of bfloat16 are exact in float32."""
    product = interpreter.InterpreterBuilder.create_dot

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return interpreter.TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return product(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture(autouse=True)
def bounds_of_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.6's interpreter makes integers of arrays with one value in a way that NumPy 2.4 no longer takes."""
    patch = interpreter._patch_lang_tensor

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    monkeypatch.setattr(interpreter, "_patch_lang_tensor", patched)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of queries and of keys even in small windows; several windows for a program of the backward pass."""
    monkeypatch.setattr(fused, "blocks_for", lambda *_: SMALL)
    monkeypatch.setattr(backward, "backward_blocks_for", lambda *_: (SMALL, SMALL))
    monkeypatch.setattr(backward, "_group", lambda windows, _, padded: 1 if padded else min(3, windows))


def operands(
    size: tuple[int, int, int], heads: int, head_dim: int, rank: int, tokens: int, dtype: torch.dtype
) -> list[Tensor]:
    random = seeded(sum(size) * head_dim + rank)
    qkv = torch.randn(*size, 3 * heads * head_dim, generator=random)
    qkv[..., : heads * head_dim] *= head_dim**-0.5
    codes = [torch.randn(heads, tokens, rank, generator=random) * scale for scale in (rank**-0.5, 1)]
    return [tensor.to(dtype) for tensor in (qkv, *codes)]


def check(found: Tensor, exact: Tensor, plain: Tensor, floor: float = 1) -> None:
    rms = exact.square().mean().sqrt()
    ours, theirs = (((x.double() - exact).square().mean().sqrt() / rms).item() for x in (found, plain))
    assert found.dtype == plain.dtype
    assert ours <= 2 * theirs + floor * torch.finfo(found.dtype).eps


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("case", GEOMETRIES)
def test_geometry(case: str) -> None:
    batch, height, width, heads, head_dim, rank, window, shift = GEOMETRIES[case]
    tensors = operands((batch, height, width), heads, head_dim, rank, window[0] * window[1], torch.float32)
    exact = window_attention(*(t.double() for t in tensors), window, heads, shift, form="reference")
    plain = window_attention(*tensors, window, heads, shift, form="reference")
    check(window_attention(*tensors, window, heads, shift, form="triton"), exact, plain)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("head_dim", "rank"), WIDTHS)
def test_width(head_dim: int, rank: int, dtype: torch.dtype) -> None:
    tensors = operands((1, 4, 5), 2, head_dim, rank, 24, dtype)
    exact = window_attention(*(t.double() for t in tensors), (4, 6), 2, form="reference")
    plain = window_attention(*tensors, (4, 6), 2, form="reference")
    check(window_attention(*tensors, (4, 6), 2, form="triton"), exact, plain)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tuned_blocks(dtype: torch.dtype) -> None:
    tensors = operands((1, 16, 17), 1, 30, 34, 256, dtype)
    exact = window_attention(*(t.double() for t in tensors), (16, 16), 1, form="reference")
    plain = window_attention(*tensors, (16, 16), 1, form="reference")
    check(window_attention(*tensors, (16, 16), 1, form="triton"), exact, plain)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gate(dtype: torch.dtype) -> None:
    tensors = operands((2, 5, 7), 2, 16, 7, 16, dtype)
    gate = torch.randn(2, 5, 7, 32, generator=seeded(5)).to(dtype)
    exact = window_attention(*(t.double() for t in tensors), (4, 4), 2, form="reference") * gate.double().sigmoid()
    plain = window_attention(*tensors, (4, 4), 2, form="reference") * gate.sigmoid()
    check(fused.window_attention_triton(*tensors, (4, 4), 2, (0, 0), gate), exact, plain)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_biases_and_shared_codes(dtype: torch.dtype) -> None:
    """Biases of q, k and v and of the gate by the kernel; one code of the keys for all heads."""
    qkv, pos_q, pos_k = operands((2, 5, 7), 2, 30, 7, 20, dtype)
    tensors = (qkv, pos_q, pos_k[:1])
    qkv_bias, gate_bias = (torch.randn(60 * n, generator=seeded(n)) for n in (3, 1))
    gate = torch.randn(2, 5, 7, 60, generator=seeded(5)).to(dtype)

    def usual(t: torch.dtype) -> Tensor:
        whole, codes = qkv.to(t) + qkv_bias.to(t), [codes.to(t) for codes in tensors[1:]]
        return window_attention(whole, *codes, (4, 5), 2, form="reference", gate=gate.to(t) + gate_bias.to(t))

    found = fused.window_attention_triton(*tensors, (4, 5), 2, (0, 0), gate, qkv_bias, gate_bias)
    check(found, usual(torch.float64), usual(dtype))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("logit", [16, 60, 2000], ids="logit-{}".format)
@pytest.mark.parametrize("token", [20, 35], ids="token-{}".format)
def test_one_logit_far_above_the_others(token: int, logit: int, dtype: torch.dtype) -> None:
    """All logits are 0 but those of one key, which is next to few queries: of 60 its weight overflows float16, of
    2000 float32 as well, so only the repetition with a running maximum gives this key's v."""
    window, (_, pos_q, pos_k) = (6, 6), operands((1, 6, 6), 1, 16, 3, 36, dtype)
    qkv = torch.zeros(1, 6, 6, 48, dtype=dtype)
    qkv[..., :16] = 1
    qkv[0, token // 6, token % 6, 16:32] = logit / 16
    qkv[..., 32:] = torch.randn(6, 6, 16, generator=seeded(1)).to(dtype)
    tensors = [qkv, torch.zeros_like(pos_q), pos_k]
    exact = window_attention(*(t.double() for t in tensors), window, 1, form="reference")
    plain = window_attention(*tensors, window, 1, form="reference")
    check(window_attention(*tensors, window, 1, form="triton"), exact, plain)
    if logit >= 60:
        assert torch.equal(exact.to(dtype)[0, 5, 5], qkv[0, token // 6, token % 6, 32:])


def gradients(tensors: list[Tensor], window: Any, heads: int, shift: Any, form: str | None = None) -> list[Tensor]:
    """The result and the gradients of qkv and both codes, then of a gate and of both biases where given."""
    inputs = [t.clone().requires_grad_() for t in tensors]
    qkv, extras = inputs[0], inputs[3:]
    if form == "triton":
        out = fused.window_attention_triton(*inputs[:3], window, heads, shift, *extras)
    else:
        if len(extras) == 3:
            qkv, extras = qkv + extras[1].to(qkv.dtype), [extras[0] + extras[2].to(qkv.dtype)]
        out = window_attention(qkv, *inputs[1:3], window, heads, shift, form="reference")
        out = out * extras[0].sigmoid() if extras else out
    weights = torch.randn(out.shape, generator=seeded(18)).to(tensors[0].dtype)
    return [out.detach(), *torch.autograd.grad(out, inputs, weights.to(out.dtype))]


def check_gradients(tensors: list[Tensor], window: Any, heads: int, shift: Any = (0, 0)) -> None:
    exact = gradients([t.double() for t in tensors], window, heads, shift)
    plain = gradients(tensors, window, heads, shift)
    for found, e, p in zip(gradients(tensors, window, heads, shift, "triton"), exact, plain, strict=True):
        if e.abs().max() > 1e-9:  # one pixel mirrored everywhere: all weights are alike, whatever the logits
            check(
                found, e, p, floor=4
            )  # <dO, O> is subtracted from numbers of its size, as in every fused backward pass
        else:
            assert found.abs().max() <= 1e-5


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("case", [case for case in GEOMETRIES if case not in ALIKE])
def test_gradients_geometry(case: str) -> None:
    batch, height, width, heads, head_dim, rank, window, shift = GEOMETRIES[case]
    tensors = operands((batch, height, width), heads, head_dim, rank, window[0] * window[1], torch.float32)
    check_gradients(tensors, window, heads, shift)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("head_dim", "rank"), [(16, 24), (30, 34)])
def test_gradients_width(head_dim: int, rank: int, dtype: torch.dtype) -> None:
    check_gradients(operands((1, 4, 6), 2, head_dim, rank, 24, dtype), (4, 6), 2)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
def test_gradients_tuned_blocks(dtype: torch.dtype) -> None:
    check_gradients(operands((1, 16, 16), 1, 16, 16, 256, dtype), (16, 16), 1)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("extra", [1, 3], ids=["gated", "gated-with-biases"])
def test_gradients_of_gate_and_biases(extra: int, dtype: torch.dtype) -> None:
    tensors = operands((1, 5, 4), 2, 16, 5, 16, dtype)
    tensors.append(torch.randn(1, 5, 4, 32, generator=seeded(7)).to(dtype))
    if extra == 3:
        tensors += [torch.randn(96, generator=seeded(8)), torch.randn(32, generator=seeded(9))]
    check_gradients(tensors, (4, 4), 2)


@pytest.mark.usefixtures("small_blocks")
def test_gradients_of_shared_codes() -> None:
    tensors = operands((2, 5, 7), 2, 16, 5, 24, torch.float32)
    tensors[2] = tensors[2][:1]
    check_gradients(tensors, (4, 6), 2)


@pytest.mark.usefixtures("small_blocks")
def test_gradient_only_of_what_wants_one() -> None:
    qkv, pos_q, pos_k = operands((2, 5, 7), 2, 16, 5, 24, torch.float32)
    found = []
    for form in ("reference", "triton"):
        codes = pos_q.clone().requires_grad_()
        window_attention(qkv, codes, pos_k, (4, 6), 2, form=form).square().sum().backward()
        found.append(codes.grad)
    assert torch.allclose(*found, rtol=1e-4, atol=1e-5)
