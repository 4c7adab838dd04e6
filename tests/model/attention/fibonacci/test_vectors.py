"""Vectors of our own, from the definition in float64, for what the official ones leave out: modified rows, 64 and 784 patches, 6 heads,
logits of several hundred, and a constant in all keys. A later change of the definition shows here.
"""

import pytest
import torch
from safetensors.torch import load_file

from flashrib.model.attention.fibonacci import offset_attention
from flashrib.model.attention.fibonacci.offsets import Order, Variant, head_offsets, pack_offsets
from tests.places import ROOT

VECTORS = load_file(ROOT / "tests" / "golden" / "fibottention_cases.safetensors")

# patches, heads, variant, order, depth, bound in float32
CASES: dict[str, tuple[int, int, Variant, Order, int, float]] = {
    "modified": (49, 3, "modified", "depth", 1, 1e-5),
    "n64_h12": (64, 12, "standard", "depth", 2, 1e-5),
    "n784_h6": (784, 6, "standard", "none", 0, 1e-5),
    "large_logits": (36, 3, "standard", "depth0", 1, 2e-4),
    "key_bias": (36, 3, "standard", "depth", 0, 1e-5),
}


@pytest.mark.parametrize("mode", ["neg_inf", "zero_logit"])
@pytest.mark.parametrize("name", CASES)
def test_vectors(name: str, mode: str) -> None:
    patches, heads, variant, order, depth, bound = CASES[name]
    qkv, wanted = VECTORS[f"{name}.qkv"], VECTORS[f"{name}.{mode}"]
    offsets = pack_offsets(head_offsets(patches, heads, depth, order, variant), patches)
    assert torch.equal(offsets, VECTORS[f"{name}.offsets"])
    for form in ("reference", "gather"):
        exact = offset_attention(qkv.double(), offsets, heads, mode, form=form)
        assert (exact - wanted).abs().max() <= 5e-7  # stored in float32
        assert (offset_attention(qkv, offsets, heads, mode, form=form) - wanted).abs().max() <= bound


def test_the_masks_of_the_vectors_differ() -> None:
    for name in CASES:
        assert (VECTORS[f"{name}.neg_inf"] - VECTORS[f"{name}.zero_logit"]).abs().max() > 0.05
