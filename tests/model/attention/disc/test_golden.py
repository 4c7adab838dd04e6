"""Official vectors of CLEAR: masks bit for bit, attention, pooled attention, the processors, two row bands."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flashrib.model.attention.disc import disc_attention, disc_mask, merge_attention, pool_tokens
from tests.official import max_abs
from tests.places import SHARED

pytestmark = pytest.mark.shared

GOLDEN = SHARED / "golden" / "clear"
SIZES = {"32x32": (32, 32), "24x40": (24, 40)}
TEXT = 16


def vectors(name: str) -> dict[str, Tensor]:
    return load_file(GOLDEN / f"{name}.safetensors")


def token_major(x: Tensor) -> Tensor:
    return x.transpose(1, 2)


@pytest.mark.parametrize("size", SIZES)
def test_masks_bit_for_bit(size: str) -> None:
    for key, wanted in (vectors(f"clear_masks_{size}") | vectors(f"clear_down4_masks_{size}")).items():
        radius = int(key.split("_")[1].removeprefix("r"))
        pooled = wanted.shape[1] - wanted.shape[0]
        assert torch.equal(disc_mask(SIZES[size], TEXT, radius, pooled), wanted), key


@pytest.mark.parametrize("form", ["op", "reference"])
@pytest.mark.parametrize("size", SIZES)
def test_attention(size: str, form: str) -> None:
    given = vectors(f"clear_attn_{size}")
    q, k, v = (token_major(given[name]) for name in "qkv")
    for radius in (4, 8, 16):
        out, _ = disc_attention(q, k, v, SIZES[size], TEXT, radius, form=form)
        assert max_abs(token_major(out), given[f"out_r{radius}"]) <= 1e-5
    everything, _ = disc_attention(q, k, v, SIZES[size], TEXT, 100, form=form)
    assert max_abs(token_major(everything), given["out_dense"]) <= 1e-5


@pytest.mark.parametrize("form", ["op", "reference"])
@pytest.mark.parametrize("size", SIZES)
def test_pooled_attention(size: str, form: str) -> None:
    given = vectors(f"clear_down4_attn_{size}")
    q, k, v = (token_major(given[name]) for name in "qkv")
    more = [torch.cat((x, pool_tokens(x, given["spatial_weight"], SIZES[size], TEXT)), 1) for x in (k, v)]
    for radius in (8, 16):
        out, _ = disc_attention(q, *more, SIZES[size], TEXT, radius, pooled=more[0].shape[1] - k.shape[1], form=form)
        assert max_abs(token_major(out), given[f"out_r{radius}_down4"]) <= 1e-5


def test_two_row_bands_merged_exactly() -> None:
    """Text queries over each half of the picture, the text's own keys counted by the first band only."""
    given = vectors("clear_attn_32x32")
    q, k, v = (token_major(given[name]) for name in "qkv")
    half = 16 * 32
    bands = [slice(0, TEXT + half), slice(TEXT + half, None)]
    parts = []
    for keys in bands:
        logits = torch.einsum("bmhd,bnhd->bhmn", q[:, :TEXT], k[:, keys]) / 4
        parts.append((torch.einsum("bhmn,bnhd->bmhd", logits.softmax(-1), v[:, keys]), logits.logsumexp(-1)))
    out, _ = merge_attention(torch.stack([o for o, _ in parts]), torch.stack([lse for _, lse in parts]))
    assert max_abs(token_major(out), vectors("clear_patch_parallel_32x32_derived")["text_out_lse"]) <= 1e-5


def error(ours: Tensor, wanted: Tensor) -> float:
    return max_abs(ours, wanted) / wanted.abs().max().item()


def linear(given: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, given[f"double.{name}.weight"], given[f"double.{name}.bias"])


@pytest.mark.parametrize("radius", [4, 8])
@pytest.mark.parametrize("down", [False, True], ids=["local", "down4"])
@pytest.mark.parametrize("proportional", [False, True], ids=["plain", "proportional"])
def test_processor(radius: int, down: bool, proportional: bool) -> None:
    """The official processors of a double and of a single block, 512 text and 16 x 16 image tokens, 2 heads of 16.

    Results reach 16, and the vectors themselves, made in float32, are up to 1.1e-5 from float64: so 1e-5 of the largest value.
    """
    given = {
        name: x.double() for name, x in vectors("clear_processor_16x16").items()
    }  # values up to 10, so not in float32
    about: dict[str, Any] = json.loads((GOLDEN / "clear_processor_16x16.json").read_text())
    text, grid = about["text_tokens"], (about["height"], about["width"])
    suffix = f"r{radius}{'_down4' if down else ''}{'_prop' if proportional else ''}"
    tokens = (10 if down else 1) * (text + grid[0] * grid[1])
    scale = (
        (torch.log(torch.tensor(tokens)) / torch.log(torch.tensor(4608)) / 16).sqrt().item() if proportional else None
    )

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(-1, (2, 16)) for x in (q, k, v))
        pooled = 0
        if down:
            weight = torch.full((4, 4), 1 / 16)
            k, v = (torch.cat((x, pool_tokens(x, weight, grid, text)), 1) for x in (k, v))
            pooled = k.shape[1] - q.shape[1]
        return disc_attention(q, k, v, grid, text, radius, scale, pooled)[0].flatten(2)

    image, words = given["img"], given["txt"]
    joint = [
        torch.cat((linear(given, f"add_{x}_proj", words), linear(given, f"to_{x}", image)), 1) for x in ("q", "k", "v")
    ]
    out = attention(*joint)
    assert error(linear(given, "to_add_out", out[:, :text]), given[f"double_txt_{suffix}"]) <= 1e-5
    assert error(linear(given, "to_out.0", out[:, text:]), given[f"double_img_{suffix}"]) <= 1e-5
    if not down:
        whole = torch.cat((words, image), 1)
        single = [
            torch.nn.functional.linear(whole, given[f"single.to_{x}.weight"], given[f"single.to_{x}.bias"])
            for x in ("q", "k", "v")
        ]
        assert error(attention(*single), given[f"single_{suffix}"]) <= 1e-5
