"""The forms of `offset_attention` compute one thing: the official vectors, the definition, and what the three masks mean."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flashrib.model.attention.fibonacci import FORMS, MASK_MODES, not_supported_reasons, offset_attention
from flashrib.model.attention.fibonacci.offsets import head_offsets, pack_offsets
from flashrib.runtime.errors import UsageError
from tests.model.attention.fibonacci.cases import LAYERS, layer
from tests.places import SHARED

BOUNDS = [(torch.float32, 1e-5), (torch.float64, 1e-9)]
MASKED = ["neg_inf", "zero_logit"]


@pytest.mark.shared
@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(("mode", "named"), [("zero_logit", "mul"), ("neg_inf", "neginf"), ("dense", "dense")])
@pytest.mark.parametrize("heads", [3, 12])
@pytest.mark.parametrize("form", ["reference", "gather"])
def test_official_vectors(form: str, heads: int, mode: str, named: str, depth: int) -> None:
    """The vectors were computed in float64 and stored in float32."""
    vector = load_file(SHARED / "golden" / "fibottention" / f"fibo_attn_h{heads}.safetensors")
    official = vector["out_dense" if mode == "dense" else f"out_{named}_depth{depth}"]
    q, k, v = (vector[name].double() for name in "qkv")
    qkv = torch.stack([q * q.shape[-1] ** -0.5, k, v]).permute(1, 3, 0, 2, 4).flatten(2)
    offsets = pack_offsets(head_offsets(196, heads, depth, "depth"), 196)
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 5e-7)):
        out = offset_attention(qkv.to(dtype), offsets, heads, mode, form=form)
        assert (out - official.transpose(1, 2).flatten(2)).abs().max() <= bound


@pytest.mark.parametrize(("dtype", "bound"), BOUNDS, ids=["float32", "float64"])
@pytest.mark.parametrize("mode", MASKED)
@pytest.mark.parametrize("name", LAYERS)
def test_gather_is_the_definition(name: str, mode: str, dtype: torch.dtype, bound: float) -> None:
    qkv, offsets, heads = layer(name)
    wanted = offset_attention(qkv, offsets, heads, mode, form="reference")
    out = offset_attention(qkv.to(dtype), offsets, heads, mode, form="gather")
    assert out.dtype == dtype
    assert (out - wanted).abs().max() <= bound


@pytest.mark.parametrize("mode", MASKED)
@pytest.mark.parametrize("name", ["modified", "offsets-beyond-the-patches"])
def test_gradient_of_gather_is_that_of_the_definition(name: str, mode: str) -> None:
    qkv, offsets, heads = layer(name)
    weights = torch.randn(
        qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3, generator=torch.Generator().manual_seed(1)
    ).double()

    def gradient(form: str) -> Tensor:
        x = qkv.clone().requires_grad_()
        (offset_attention(x, offsets, heads, mode, form=form) * weights).sum().backward()
        assert x.grad is not None
        return x.grad

    assert (gradient("gather") - gradient("reference")).abs().max() <= 1e-12


@pytest.mark.parametrize("logit", [300.0, -300.0])
@pytest.mark.parametrize("mode", MASKED)
def test_large_logits(mode: str, logit: float) -> None:
    """e^300 leaves float32; the maximum must be subtracted, and under zero_logit it is at least 0."""
    qkv, offsets, heads = layer("grid-7")
    queries, keys, _ = qkv.chunk(3, dim=-1)
    queries.fill_(logit / 16)
    keys.fill_(1.0)
    keys[:, ::2] *= -1
    wanted = offset_attention(qkv, offsets, heads, mode, form="reference")
    out = offset_attention(qkv.float(), offsets, heads, mode, form="gather")
    assert torch.isfinite(out).all()
    assert (out - wanted).abs().max() <= 2e-4


def test_offset_0_counts_once() -> None:
    qkv, _, _ = layer("two-patches")
    qkv = qkv[..., : 3 * 16]
    alone = torch.zeros(1, 1, dtype=torch.int32)
    out = offset_attention(qkv, alone, 1, "neg_inf", form="gather")[0, 1]
    q, k, v = (x.squeeze(1) for x in qkv[0].view(3, 3, 16).split(1, dim=1))
    weights = torch.softmax(torch.stack([q[1] @ k[0], q[1] @ k[1]]), 0)
    assert (out - (weights[0] * v[0] + weights[1] * v[1])).abs().max() <= 1e-12


def test_the_three_masks_differ() -> None:
    qkv, offsets, heads = layer("grid-7")
    results = [offset_attention(qkv, offsets, heads, mode) for mode in MASK_MODES]
    assert all(
        (a - b).abs().max() > 0.05
        for a, b in ((results[0], results[1]), (results[0], results[2]), (results[1], results[2]))
    )
    assert all(torch.allclose(r[:, 0], results[0][:, 0]) for r in results)  # the class token sees all in each


@pytest.mark.parametrize("mode", MASKED)
def test_key_bias(mode: str) -> None:
    """A constant added to all keys shifts the logits of kept keys alone: nothing under neg_inf, another result under zero_logit."""
    qkv, offsets, heads = layer("grid-7")
    moved = qkv.clone()
    moved[..., 48:96] += 0.7
    difference = (offset_attention(qkv, offsets, heads, mode) - offset_attention(moved, offsets, heads, mode))[:, 1:]
    assert (difference.abs().max() <= 1e-12) == (mode == "neg_inf")


def test_every_form_has_reasons_or_runs() -> None:
    qkv, _, _ = layer("grid-7")
    assert not not_supported_reasons("reference", qkv)
    assert not not_supported_reasons("gather", qkv)
    assert set(FORMS) == {"reference", "gather", "symbolic", "triton"}
    assert any("CUDA" in reason for reason in not_supported_reasons("triton", qkv))
    assert not_supported_reasons("symbolic", qkv)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_heads": 5}, "do not belong together"),
        ({"offsets": torch.zeros(2, 1, dtype=torch.int32)}, "do not belong together"),
        ({"mask_mode": "minus_one"}, "neg_inf, zero_logit, dense"),
        ({"form": "magic"}, "reference, gather"),
        ({"qkv": torch.zeros(1, 1, 144)}, "at least one patch"),
        ({"form": "triton", "qkv": torch.zeros(1, 50, 144, dtype=torch.float64)}, "float64"),
    ],
)
def test_refused(arguments: dict[str, object], words: str) -> None:
    qkv, offsets, heads = layer("grid-7")
    values: dict[str, object] = {"qkv": qkv, "offsets": offsets, "num_heads": heads, **arguments}
    with pytest.raises(UsageError, match=words):
        offset_attention(**values)
