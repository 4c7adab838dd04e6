"""The forms of `window_attention` agree with the reference, in value, gradient and errors; the default one has linear memory."""

import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flashrib.model.attention.window import FORMS, automatic_form, not_supported_reasons, window_attention
from flashrib.runtime.errors import UsageError
from tests.official import max_abs, seeded

# batch, height, width, heads, D, R, window, shift
CASES = {
    "one-pixel": (1, 1, 1, 2, 4, 3, (8, 8), (0, 0)),
    "one-pixel-shifted": (1, 1, 1, 2, 4, 3, (8, 8), (4, 4)),
    "one-row": (1, 1, 9, 1, 4, 3, (4, 6), (0, 0)),
    "window-larger-than-map": (1, 5, 7, 3, 16, 24, (16, 16), (0, 0)),
    "window-much-larger-than-map": (2, 3, 2, 1, 8, 3, (16, 24), (0, 0)),
    "whole-windows": (1, 16, 24, 3, 16, 16, (8, 8), (0, 0)),
    "whole-windows-shifted": (2, 16, 24, 2, 16, 3, (8, 8), (4, 4)),
    "oblong": (1, 33, 47, 2, 8, 24, (4, 6), (0, 0)),
    "oblong-shifted": (2, 33, 47, 3, 8, 5, (4, 6), (2, 3)),
    "odd-window-shifted": (1, 22, 18, 2, 4, 3, (5, 5), (2, 2)),
    "partial-shifted": (2, 33, 47, 3, 16, 24, (8, 8), (4, 4)),
    "head-size-30": (1, 17, 20, 6, 30, 34, (16, 16), (0, 0)),
}
ROOT = Path(__file__).resolve().parents[4]


def operands(case: str, dtype: torch.dtype) -> tuple[list[Tensor], tuple[int, int], int, tuple[int, int]]:
    batch, height, width, heads, head_dim, rank, window, shift = CASES[case]
    random = seeded(batch * height * width)
    tokens = window[0] * window[1]
    shapes = [(batch, height, width, 3 * heads * head_dim), (heads, tokens, rank), (heads, tokens, rank)]
    tensors = [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]
    tensors[0][..., : heads * head_dim] *= head_dim**-0.5
    tensors[1] *= rank**-0.5
    return tensors, window, heads, shift


@pytest.mark.parametrize("case", CASES)
def test_float64_forward_and_gradients(case: str) -> None:
    tensors, window, heads, shift = operands(case, torch.float64)
    results = []
    for form in ("sdpa", "reference"):
        inputs = [tensor.clone().requires_grad_() for tensor in tensors]
        output = window_attention(*inputs, window, heads, shift, form=form)
        weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape)
        results.append([output, *torch.autograd.grad((output * weights).sum(), inputs)])
    for ours, wanted in zip(*results, strict=True):
        assert max_abs(ours.detach(), wanted.detach()) <= 1e-10


@pytest.mark.parametrize("case", CASES)
def test_float32_is_as_close_to_the_truth_as_the_reference(case: str) -> None:
    tensors, window, heads, shift = operands(case, torch.float32)
    truth = window_attention(*(tensor.double() for tensor in tensors), window, heads, shift, form="reference")
    ours = window_attention(*tensors, window, heads, shift)
    reference = window_attention(*tensors, window, heads, shift, form="reference")
    assert ours.dtype == torch.float32
    assert ours.shape == (*tensors[0].shape[:3], tensors[0].shape[3] // 3)
    assert max_abs(ours, truth) <= 2 * max_abs(reference, truth) + 1e-6


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("case", ["whole-windows-shifted", "partial-shifted", "head-size-30"])
def test_flash_attn_gets_what_it_wants(case: str, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package, which has (batch, tokens, heads, channels) and one head size, a multiple of 8, for q, k and v."""

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, softmax_scale: float) -> Tensor | tuple[Tensor, Tensor]:
        assert q.shape == k.shape == v.shape
        assert q.shape[1:3] == (window[0] * window[1], heads)
        assert q.shape[3] % 8 == 0
        scores = softmax_scale * torch.einsum("bqhc,bkhc->bhqk", q, k)
        out = torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v)
        return out if version == 2 else (out, scores.logsumexp(-1))

    package = types.ModuleType("flash_attn")
    holder = package if version == 2 else types.ModuleType("flash_attn.cute")
    vars(holder)["flash_attn_func"] = flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    monkeypatch.setitem(sys.modules, "flash_attn.cute", holder)
    tensors, window, heads, shift = operands(case, torch.float64)
    ours = window_attention(*tensors, window, heads, shift, form="flash")
    assert max_abs(ours, window_attention(*tensors, window, heads, shift, form="reference")) <= 1e-12


@pytest.mark.parametrize("form", ["reference", "sdpa"])
def test_one_code_of_the_keys_for_all_heads(form: str) -> None:
    (qkv, pos_q, pos_k), window, heads, shift = operands("oblong-shifted", torch.float64)
    shared = window_attention(qkv, pos_q, pos_k[:1], window, heads, shift, form=form)
    repeated = window_attention(qkv, pos_q, pos_k[:1].repeat(heads, 1, 1), window, heads, shift, form="reference")
    assert max_abs(shared, repeated) <= 1e-12


@pytest.mark.parametrize("form", ["reference", "sdpa"])
def test_gate_multiplies_by_its_sigmoid(form: str) -> None:
    tensors, window, heads, shift = operands("partial-shifted", torch.float64)
    plain = window_attention(*tensors, window, heads, shift, form=form)
    gate = torch.randn(plain.shape, generator=seeded(1), dtype=torch.float64)
    gated = window_attention(*tensors, window, heads, shift, form=form, gate=gate)
    assert max_abs(gated, plain / (1 + (-gate).exp())) <= 1e-12


@pytest.mark.parametrize("form", ["reference", "sdpa"])
def test_biases_are_those_of_the_matmuls_before(form: str) -> None:
    (qkv, pos_q, pos_k), window, heads, shift = operands("partial-shifted", torch.float64)
    channels = qkv.shape[-1]
    bias = torch.randn(channels, generator=seeded(1), dtype=torch.float64)
    gate = torch.randn(*qkv.shape[:3], channels // 3, generator=seeded(2), dtype=torch.float64)
    layer = (pos_q, pos_k, window, heads, shift)
    ours = window_attention(qkv, *layer, qkv_bias=bias, gate=gate, gate_bias=bias[: channels // 3], form=form)
    wanted = window_attention(qkv + bias, *layer, form="reference", gate=gate + bias[: channels // 3])
    assert max_abs(ours, wanted) <= 1e-12


def test_every_form_takes_the_whole_signature() -> None:
    wanted = list(inspect.signature(window_attention).parameters)[:-1]
    for name, form in FORMS.items():
        assert list(inspect.signature(form.function).parameters) == wanted, name


def test_why_a_form_is_not_taken() -> None:
    qkv = torch.zeros(1, 4, 4, 12, dtype=torch.float64)
    assert automatic_form(qkv) == "sdpa"
    assert not_supported_reasons(qkv, "sdpa") == []
    assert "its kernel is for CUDA GPUs, and qkv is on 'cpu'" in not_supported_reasons(qkv, "triton")
    assert "its kernel computes in float32, and qkv is float64" in not_supported_reasons(qkv, "triton")
    assert "the package computes in 16 bits, and qkv is torch.float64" in not_supported_reasons(qkv, "flash")
    assert not_supported_reasons(qkv, "symbolic")
    assert not_supported_reasons(qkv, "reference")
    with pytest.raises(UsageError, match="unknown form 'none-such'"):
        not_supported_reasons(qkv, "none-such")


def test_windows_are_anchored_at_the_top_left_and_do_not_mix() -> None:
    tensors, window, heads, _ = operands("whole-windows", torch.float64)
    before = window_attention(*tensors, window, heads)
    tensors[0][:, 8:, 16:] += 1.0  # the window in the second row and third column
    changed = (window_attention(*tensors, window, heads) != before).any(dim=-1)[0]
    assert changed[8:, 16:].all()
    assert not changed[:8].any()
    assert not changed[:, :16].any()


def test_shift_needs_no_mask_and_wraps_around() -> None:
    tensors, window, heads, shift = operands("whole-windows-shifted", torch.float64)
    rolled = tensors[0].roll((-4, -4), dims=(1, 2))
    wanted = window_attention(rolled, *tensors[1:], window, heads).roll((4, 4), dims=(1, 2))
    assert max_abs(window_attention(*tensors, window, heads, shift), wanted) <= 1e-12


def test_a_map_smaller_than_its_window_is_reflected_periodically() -> None:
    tensors, window, heads, _ = operands("window-larger-than-map", torch.float64)
    rows = [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]
    columns = [0, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3]
    whole = tensors[0][:, rows][:, :, columns]
    wanted = window_attention(whole, *tensors[1:], window, heads, form="reference")[:, :5, :7]
    assert max_abs(window_attention(*tensors, window, heads), wanted) <= 1e-12


@pytest.mark.parametrize(
    ("qkv", "pos_q", "pos_k", "window", "heads", "form", "says"),
    [
        ((1, 8, 8, 25), (2, 64, 3), (2, 64, 3), (8, 8), 2, None, r"qkv \(1, 8, 8, 25\)"),
        ((1, 8, 8, 24), (3, 64, 3), (3, 64, 3), (8, 8), 2, None, r"pos_q \(3, 64, 3\)"),
        ((1, 8, 8, 24), (2, 64, 3), (2, 64, 4), (8, 8), 2, None, r"pos_k \(2, 64, 4\)"),
        ((1, 8, 8, 36), (3, 64, 3), (2, 64, 3), (8, 8), 3, None, r"pos_k \(2, 64, 3\)"),
        ((1, 8, 8, 24), (2, 64, 3), (2, 64, 3), (8, 4), 2, None, r"window \(8, 4\)"),
        ((1, 8, 8, 24), (2, 64, 3), (2, 64, 3), (8, 8), 2, "none-such", "symbolic, triton, flash, sdpa, reference"),
    ],
    ids=["channels", "heads", "ranks", "shared", "window", "form"],
)
def test_operands_that_do_not_belong_together(
    qkv: tuple[int, ...],
    pos_q: tuple[int, ...],
    pos_k: tuple[int, ...],
    window: tuple[int, int],
    heads: int,
    form: str | None,
    says: str,
) -> None:
    with pytest.raises(UsageError, match=says):
        window_attention(torch.zeros(qkv), torch.zeros(pos_q), torch.zeros(pos_k), window, heads, form=form)


PEAK_OF_ONE_CALL = """
import torch
from flashrib.model.attention.window import window_attention

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024

with torch.no_grad():
    torch.set_num_threads(2)
    codes = torch.randn(3, 96 * 96, 24)
    window_attention(torch.randn(1, 8, 8, 144), codes[:, :64], codes[:, :64], (8, 8), 3)  # loads the libraries
    before = peak()
    window_attention(torch.randn(1, 96, 96, 144), codes, codes, (96, 96), 3)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of the memory from /proc")
def test_memory_is_linear_in_the_window() -> None:
    """One window of 96 x 96 tokens with 3 heads: its scores alone would take 972 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK_OF_ONE_CALL], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert float(done.stdout) < 200
