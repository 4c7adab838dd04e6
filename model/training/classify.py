"""Training of classifiers: cross entropy, AdamW, cosine, a moving average of the weights.

`fit` trains a network on pictures in memory, from any epoch on; `flashrib.model.training.classifier` is the same from a TOML file, for
`flashrib train`.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.network import Network
from flashrib.model.training.state import TrainingState
from flashrib.runtime.errors import FlashribError


@dataclasses.dataclass(frozen=True)
class FitOptions:
    """How a classifier is trained.

    Attributes:
        epochs: passes over the pictures.
        batch: pictures per step.
        lr: peak learning rate of AdamW, after `warmup` epochs of linear warm-up; a cosine leads to 0.
        weight_decay: of AdamW, on matrices and convolutions alone.
        warmup: epochs.
        ema: decay of the moving average of the weights, which is what is kept; 0: the weights themselves.
        smoothing: label smoothing, 0..1; 0 is off.
        clip: largest norm of the gradient.
        shift: pictures are moved by up to so many pixels to each side, their edge repeated.
        flip: half of the pictures are mirrored.
        seed: of the order of pictures and of the changes to them.
        autocast: compute in bfloat16 where that is safe.
    """

    epochs: int = 30
    batch: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 2
    ema: float = 0.999
    smoothing: float = 0.0
    clip: float = 1.0
    shift: int = 0
    flip: bool = False
    seed: int = 0
    autocast: bool = False


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What an epoch gave: its number from 1, the mean loss, seconds since the begin."""

    number: int
    loss: float
    seconds: float


def begin(network: Network, options: FitOptions, device: str = "cpu") -> TrainingState:
    """Return what `fit` begins with; `network` itself is trained. `TrainingState.load` makes it what an interrupted run goes on with."""
    network.to(device).train()
    groups = [
        {"params": [p for p in network.parameters() if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.lr, betas=(0.9, 0.999))
    averaged = [p.detach().clone() for p in network.parameters()]
    return TrainingState(network, averaged, optimizer, torch.Generator().manual_seed(options.seed))


def fit(
    state: TrainingState, pictures: Tensor, labels: Tensor, options: FitOptions, device: str = "cpu"
) -> Iterator[Epoch]:
    """Train from the epoch that `state` has reached; gives after every epoch its report. `state.averaged()` has what shall be used.

    Args:
        state: as `begin` makes it, or as loaded after an epoch. Its network: pictures (B, 3, S, S) in 0..1 -> logits (B, K).
        pictures: (n, 3, S, S) uint8.
        labels: (n) int64, 0..K-1.
        options: as of `begin`.
        device: "cpu" or "cuda", as of `begin`.

    Raises:
        FlashribError: the loss became infinite or NaN.
    """
    network = state.network
    steps = math.ceil(len(pictures) / options.batch)
    started = time.perf_counter()
    for number in range(state.step // steps + 1, options.epochs + 1):
        losses = 0.0
        for chosen in torch.split(torch.randperm(len(pictures), generator=state.generator), options.batch):
            for group in state.optimizer.param_groups:
                group["lr"] = options.lr * _factor(state.step, options.warmup * steps, options.epochs * steps)
            x = _changed(pictures[chosen], options, state.generator).to(device).float() / 255
            with torch.autocast(device, torch.bfloat16, enabled=options.autocast):
                logits = network(x)
            loss = F.cross_entropy(logits.float(), labels[chosen].to(device), label_smoothing=options.smoothing)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FlashribError(f"training diverged: the loss is {value} in step {state.step + 1}; lower lr")
            state.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            nn.utils.clip_grad_norm_(network.parameters(), options.clip)
            state.optimizer.step()
            state.step += 1
            state.average(min(options.ema, (1 + state.step) / (10 + state.step)) if options.ema else 0.0)
            losses += value
        yield Epoch(number, losses / steps, time.perf_counter() - started)


def accuracy(network: Callable[[Tensor], Tensor], pictures: Tensor, labels: Tensor, device: str = "cpu") -> float:
    """Share of the pictures (n, 3, S, S) uint8 whose largest logit is that of their label."""
    right = 0
    with torch.inference_mode():
        for x, y in zip(torch.split(pictures, 64), torch.split(labels, 64), strict=True):
            right += int((network(x.to(device).float() / 255).argmax(-1).cpu() == y).sum())
    return right / len(labels)


def _factor(step: int, warmup: int, steps: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def _changed(pictures: Tensor, options: FitOptions, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, S, S) moved and mirrored at random."""
    count, _, rows, columns = pictures.shape
    if options.shift:
        most = options.shift
        moves = torch.randint(-most, most + 1, (2, count, 1), generator=generator)
        row = (torch.arange(rows) + moves[0]).clamp(0, rows - 1)
        column = (torch.arange(columns) + moves[1]).clamp(0, columns - 1)
        pictures = pictures[torch.arange(count)[:, None, None], :, row[:, :, None], column[:, None, :]].permute(
            0, 3, 1, 2
        )
    if options.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        pictures = torch.where(mirrored[:, None, None, None], pictures.flip(-1), pictures)
    return pictures
