"""What a training makes smaller: a row for each family of networks whose official training is not the usual one."""

import random
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.network import Network
from flashrib.model.training.adversarial import Opponent
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.consistency import Loss, Schedule, mixed, noisy, pyramid, student_losses, target_of
from flashrib.model.training.degradations import Degradation
from flashrib.model.training.degradations.operations import resize, to_8_bits
from flashrib.model.training.degraded import degrade
from flashrib.model.training.parallel import World
from flashrib.model.training.steps import autocast_of
from flashrib.runtime.errors import UsageError


class Objective(Protocol):
    """The loss of a step, in two parts: what may take its time on the CPU and draw at random, and what a CUDA graph can hold."""

    def batch(self, low: Tensor, high: Tensor, seed: int, step: int) -> tuple[Tensor, ...]:
        """Return what `loss` takes, of shapes that are always the same.

        Args:
            low: low-resolution patches (B, 3, H, W) in 0..1.
            high: high-resolution ones (B, 3, rH, rW).
            seed: of everything that is drawn.
            step: counted from 0.
        """

    def loss(self, *inputs: Tensor) -> Tensor:
        """Return the loss, a scalar; without autocast's cache, which a CUDA graph cannot have."""

    def after(self, rate: float, world: World) -> None:
        """Let what learns beside the network learn from the step that was just made, at a learning rate."""


class Regression:
    """L1 or L2 between what the network makes of a low-resolution patch and the high-resolution one; and what an opponent says, if any."""

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        config: TrainConfig,
        device: torch.device,
        degradation: Degradation | None,
        opponent: Opponent | None = None,
    ) -> None:
        self._forward, self._degradation = forward, degradation
        self._opponent, self._weight = opponent, config.adversarial
        self._distance = {"l1": F.l1_loss, "l2": F.mse_loss}[config.loss]
        self._autocast = autocast_of(config, device)
        self._last: tuple[Tensor, Tensor] | None = None  # what the network made, and what it should have made

    def batch(self, low: Tensor, high: Tensor, seed: int, step: int) -> tuple[Tensor, ...]:
        """See `Objective.batch`."""
        if self._degradation is not None:
            low = degrade(self._degradation, high, seed)[0]
        return low.to(memory_format=torch.channels_last), high

    def loss(self, *inputs: Tensor) -> Tensor:
        """See `Objective.loss`."""
        low, high = inputs
        with self._autocast():
            output = self._forward(low).float()
        loss = self._distance(output, high)
        if self._opponent is None:
            return loss
        self._last = output.detach(), high  # of a graph: where each replay leaves them
        return loss + self._weight * self._opponent.misled(output)

    def after(self, rate: float, world: World) -> None:
        """See `Objective.after`."""
        if self._opponent is not None and self._last is not None:
            self._opponent.step(*self._last, rate, world)


class Consistency:
    """The consistency training of SST-Real; see `flashrib.model.training.consistency`."""

    def __init__(
        self, network: Any, config: TrainConfig, device: torch.device, degradation: Degradation | None, loss: Loss
    ) -> None:
        self._network, self._degradation, self._loss = network, degradation, loss
        self._schedule = Schedule(config.steps, *config.noise_steps)
        self._autocast = autocast_of(config, device)

    def batch(self, low: Tensor, high: Tensor, seed: int, step: int) -> tuple[Tensor, ...]:
        """See `Objective.batch`: noisy pictures of the student's level, that level, low-resolution patches, and the target."""
        if self._degradation is not None:
            low, enlarged = degrade(self._degradation, high, seed)
        else:
            enlarged = to_8_bits(resize(low, "bicubic", (high.shape[2], high.shape[3])))
        x0, y0, low = (2 * x - 1 for x in (high, enlarged, low))
        z = torch.randn(x0.shape, generator=torch.Generator(x0.device).manual_seed(seed), device=x0.device)
        grid = self._schedule.grid(step + 1)
        index = random.Random(seed).randrange(len(grid) - 1)
        below, level = (float(value) for value in grid[index : index + 2])
        with self._autocast():
            target = target_of(self._network, x0, y0, low, z, below)
        return noisy(x0, y0, z, level), x0.new_full((len(x0),), level), low, target.float()

    def loss(self, *inputs: Tensor) -> Tensor:
        """See `Objective.loss`."""
        x, level, low, target = inputs
        with self._autocast():
            guide, last = student_losses(self._network, x, level, low, target, self._loss)
        return guide + last

    def after(self, rate: float, world: World) -> None:
        """See `Objective.after`: nothing else learns."""


def objective_for(
    network: Network,
    forward: Callable[[Tensor], Tensor],
    config: TrainConfig,
    device: torch.device,
    degradation: Degradation | None,
    perceptual: Loss | None,
    opponent: Opponent | None = None,
) -> Objective:
    """Return what the training of a network makes smaller.

    Args:
        network: what is trained.
        forward: the network, or what stands before it.
        config: of the training.
        device: of the training.
        degradation: what makes the low-resolution patches; None: they come with the data.
        perceptual: the loss that `perceptual = "given"` means.
        opponent: what `adversarial` means.

    Raises:
        UsageError: a perceptual loss is missing, or nothing wants it; or the network has no quantization-aware finetuning.
    """
    if (perceptual is not None) != (config.perceptual == "given"):
        raise UsageError('perceptual = "given" and train(..., perceptual=...) belong together: one is missing')
    if network.config.family != "sst-real":
        if config.perceptual != "pyramid":
            raise UsageError(f"perceptual = {config.perceptual!r} is for sst-real: leave it out")
        return Regression(forward, config, device, degradation, opponent)
    for name, value in (("qat", config.qat), ("adversarial", config.adversarial)):
        if value:
            raise UsageError(f"{name} = {value!r} is not for sst-real: leave it out")
    if config.loss != "l1":
        raise UsageError(f"loss = {config.loss!r} is not for sst-real, which has a loss of its own: leave it out")
    chosen = {"pyramid": pyramid, "none": None, "given": perceptual}[config.perceptual]
    return Consistency(network, config, device, degradation, mixed(chosen))
