"""Low-resolution pictures that are made worse than by shrinking alone, for training and for its validation."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import Pair
from flashrib.model.training.degradations import DEGRADATIONS, Degradation

GROUP = 8  # pictures of a batch that share what the degradation draws for a whole batch


def degradation_of(config: TrainConfig) -> Degradation | None:
    """What the configuration asks for; None: low-resolution pictures are only shrunk."""
    if config.degradation == "bicubic":
        return None
    return Degradation(dataclasses.replace(DEGRADATIONS[config.degradation], scale=config.scale))


def degrade(degradation: Degradation, high: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Make the low-resolution pictures of a batch, in groups of `GROUP`.

    Args:
        degradation: what is done.
        high: (B, 3, rH, rW), RGB in 0..1.
        seed: of all draws.

    Returns:
        (B, 3, H, W) and the same enlarged again, (B, 3, rH, rW), both of 8 bits, in 0..1; see `Degradation`.
    """
    groups = torch.split(high, GROUP)
    made = [degradation(group, seed * len(groups) + i) for i, group in enumerate(groups)]
    return torch.cat([low for low, _ in made]), torch.cat([enlarged for _, enlarged in made])


def degrade_pairs(degradation: Degradation, pairs: list[Pair], device: torch.device) -> list[Pair]:
    """Give each pair the low-resolution picture that the degradation makes of its high-resolution one, seeded by its place.

    Raises:
        UsageError: a picture is too small.
    """
    result = []
    for seed, pair in enumerate(pairs):
        high = torch.tensor(pair.high, device=device).permute(2, 0, 1)[None].float() / 255
        low = degradation(high, seed)[0][0].permute(1, 2, 0).cpu().numpy()
        result.append(Pair(pair.high, np.round(low * 255).astype(np.uint8)))
    return result
