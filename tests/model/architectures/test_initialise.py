"""Fresh presets have the random weights that the official training starts from."""

import json
import math
from typing import Any

import pytest
import torch

from flashrib.model import build_model
from tests.official import SHARED_GOLDEN

FACTS = SHARED_GOLDEN.parent / "sst_real" / "real_training_facts.json"


def test_sst() -> None:
    torch.manual_seed(0)
    network = build_model("sst-light")
    state = network.state_dict()
    assert not any(value.any() for key, value in state.items() if key.endswith((".bias", "hidden_b")))
    narrow = [value for key, value in state.items() if value.shape[2:] == (1, 1)]
    assert all(0.018 < value.std().item() < 0.022 for value in narrow)
    codes = [value for key, value in state.items() if key.endswith(("to_hidden", "attn.to_q", "attn.to_k"))]
    assert all(0.045 < value.std().item() < 0.055 for value in codes)
    wide = state["body.0.6.weight"]  # PyTorch's: uniform
    assert wide.abs().max().item() <= (48 * 9) ** -0.5


def test_esc() -> None:
    torch.manual_seed(0)
    state = build_model("esc-rib").state_dict()
    kernel = state["plk_filter"].flatten(1)
    assert torch.allclose(kernel @ kernel.T, torch.eye(16), atol=1e-5)
    assert not any(value.any() for key, value in state.items() if "dwc_proj.3" in key)
    assert state["blocks.0.attn.to_qkv.bias"].any()


@pytest.mark.shared
@pytest.mark.parametrize(
    ("facts", "preset"), [("init_SST_X2", "sst"), ("init_ESCRIB_X2", "esc-rib"), ("init_SSTReal_X4", "sst-real")]
)
def test_statistics_are_the_official_ones(facts: str, preset: str) -> None:
    """Means and widths of every tensor that was recorded, within 6 standard errors of both samples."""
    if not FACTS.exists():
        pytest.skip("the official statistics are not in ../shared/golden/sst_real")
    recorded: dict[str, dict[str, Any]] = json.loads(FACTS.read_text())[facts]
    torch.manual_seed(0)
    state = build_model(preset, int(facts[-1])).state_dict()
    for key, wanted in recorded.items():
        value = state[key].double()
        assert list(value.shape) == wanted["shape"], key
        error = 6 * wanted["std"] * math.sqrt(2 / value.numel())
        assert abs(value.mean().item() - wanted["mean"]) <= error, key
        if value.numel() > 1:
            assert abs(value.std().item() - wanted["std"]) <= error, key
