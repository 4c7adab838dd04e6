"""Rank folding is exact, and codes are completed by zeros only."""

import pytest
import torch
from torch import Tensor

from flashrib.model.gpu.position import constant_codes, fold_rank
from flashrib.model.rib import position_codes
from tests.official import max_abs, seeded

HEADS, HIDDEN = 3, 8


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


@pytest.mark.parametrize(("rank", "folded"), [(3, 3), (8, 8), (9, 8), (19, 8)])
def test_fold_rank(rank: int, folded: int) -> None:
    to_q, to_k = random(HEADS, HIDDEN, rank), random(HEADS, HIDDEN, rank, seed=1)
    left, right = fold_rank(to_q, to_k)
    assert left.shape == right.shape == (HEADS, HIDDEN, folded)
    assert max_abs(left @ right.mT, to_q @ to_k.mT) <= 1e-12


@pytest.mark.parametrize(("rank", "padded"), [(5, 8), (8, 8), (11, 8)])
def test_constant_codes_give_the_same_bias(rank: int, padded: int) -> None:
    rows, columns = random(5, HIDDEN), random(7, HIDDEN, seed=1)
    to_q, to_k = random(HEADS, HIDDEN, rank, seed=2), random(HEADS, HIDDEN, rank, seed=3)
    before, after = position_codes(rows, columns, to_q, to_k), constant_codes(rows, columns, to_q, to_k)
    assert after[0].shape == after[1].shape == (HEADS, 35, padded)
    bias = before[0] @ before[1].mT
    assert max_abs(after[0] @ after[1].mT, bias) <= 1e-12 * bias.abs().max()
