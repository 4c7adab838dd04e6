"""Optimizer and learning rate of a training run."""

import math

import torch
from torch import nn

from flashrib.model.network import Network
from flashrib.model.training.config import TrainConfig


def make_optimizer(network: Network, config: TrainConfig, device: torch.device) -> torch.optim.Optimizer:
    """Adam, or AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).

    Parameters that `network.undecayed()` names have no weight decay.
    """
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    first, second = config.betas
    return kind(
        parameter_groups(network, config.weight_decay),
        lr=config.lr,
        betas=(first, second),
        weight_decay=config.weight_decay,
        fused=device.type == "cuda",
    )


def parameter_groups(network: Network, weight_decay: float) -> list[dict[str, list[nn.Parameter] | float]]:
    """One group, or two where some parameters have no weight decay."""
    exempt = network.undecayed() if weight_decay else set()
    named = list(network.named_parameters())
    groups: list[dict[str, list[nn.Parameter] | float]] = [{"params": [p for name, p in named if name not in exempt]}]
    if exempt:
        groups.append({"params": [p for name, p in named if name in exempt], "weight_decay": 0.0})
    return groups


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step, counted from 0: linear warm-up, then the schedule.

    "cosine": half a cosine from `lr` to `lr_final`. "multistep": `lr` times `gamma` for each milestone that has been reached; the warm-up
    is part of the count.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "multistep":
        return config.lr * config.gamma ** sum(step >= milestone for milestone in config.milestones)
    progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr_final + (config.lr - config.lr_final) * (1 + math.cos(math.pi * progress)) / 2


def ema_decay(step: int, config: TrainConfig) -> float:
    """Decay of the averaged weights after a step, counted from 0."""
    return min(config.ema, (1 + step) / (10 + step)) if config.ema_warmup else config.ema
