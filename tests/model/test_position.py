"""Codes for the kernel give the same bias as those of the definition, exactly and as well in 16 bits."""

import pytest
import torch
from torch import Tensor

from flashrib.model.position import constant_codes
from flashrib.model.rib import position_codes
from tests.official import max_abs, seeded

HEADS, HIDDEN = 3, 32


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def codes(rank: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Of the definition, and for the kernel."""
    rows, columns = random(5, HIDDEN), random(7, HIDDEN, seed=1)
    to_q, to_k = random(HEADS, HIDDEN, rank, seed=2) * rank**-0.5, random(HEADS, HIDDEN, rank, seed=3)
    return position_codes(rows, columns, to_q, to_k), constant_codes(rows, columns, to_q, to_k)


# rank, channels that the kernel multiplies, heads of pos_k
CASES = [(5, 16, HEADS), (16, 16, HEADS), (18, 32, 1), (24, 32, 1), (32, 32, 1), (34, 32, 1)]


@pytest.mark.parametrize(("rank", "channels", "heads"), CASES)
def test_the_same_bias(rank: int, channels: int, heads: int) -> None:
    before, after = codes(rank)
    assert after[0].shape == (HEADS, 35, channels)
    assert after[1].shape == (heads, 35, channels)
    bias = before[0] @ before[1].mT
    assert max_abs(after[0] @ after[1].mT, bias) <= 1e-12 * bias.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rank", [18, 24, 32, 34])
def test_as_exact_in_16_bits(rank: int, dtype: torch.dtype) -> None:
    before, after = codes(rank)
    bias = before[0] @ before[1].mT
    usual, ours = (
        (q.to(dtype).double() @ k.to(dtype).double().mT - bias).square().mean().sqrt() for q, k in (before, after)
    )
    assert ours <= 1.25 * usual
