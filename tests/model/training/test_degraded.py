"""Degraded low-resolution pictures."""

import dataclasses

import numpy as np
import pytest
import torch

from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import make_pair
from flashrib.model.training.degradations import DEGRADATIONS
from flashrib.model.training.degraded import GROUP, degradation_of, degrade, degrade_pairs
from flashrib.runtime.errors import UsageError

PHOTO = TrainConfig(data=("",), degradation="photo", scale=2)


def test_bicubic_degrades_nothing() -> None:
    assert degradation_of(TrainConfig(data=("",))) is None
    with pytest.raises(UsageError, match="degradation = 'rain'"):
        TrainConfig(data=("",), degradation="rain")  # no such name


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("scale", [2, 4])
def test_names_and_scales(name: str, scale: int) -> None:
    degradation = degradation_of(dataclasses.replace(PHOTO, degradation=name, scale=scale))
    assert degradation is not None
    high = torch.rand(GROUP + 2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    low = degrade(degradation, high, 5)[0]
    assert low.shape == (GROUP + 2, 3, 64 // scale, 96 // scale)
    assert torch.equal(low, degrade(degradation, high, 5)[0])
    assert not torch.equal(low, degrade(degradation, high, 6)[0])
    assert torch.equal(low[GROUP:], degradation(high[GROUP:], 11)[0])  # a group has draws of its own


def test_pairs_keep_their_high_picture() -> None:
    degradation = degradation_of(PHOTO)
    assert degradation is not None
    pair = make_pair(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8), 2)
    first, second = degrade_pairs(degradation, [pair, pair], torch.device("cpu"))
    assert first.high is pair.high
    assert first.low.shape == pair.low.shape
    assert not np.array_equal(first.low, pair.low)
    assert not np.array_equal(first.low, second.low)
