"""Consistency training of SST-Real: what the network makes of one noise level must be what it makes of the level below.

With x0 the photograph and y0 the enlarged bad picture, both in -1..1, and grid points g_0 = 0 .. g_{N-1} = 1:

    x_j = x0 + g_j (y0 - x0) + g_j z        j = i: target, j = i + 1: student; one z and one i for both and for the whole batch
    loss = 0.25 L(D_i, t) + L(D_f, t)       t = D_f of the target, without dropout and gradient; D_i, D_f of the student

At i = 0 the target is x0 itself. N goes from 5 to 4 half way through the training. No teacher, no discriminator.
Source: Song, Dhariwal, Chen, Sutskever, "Consistency models", 2023, with the settings of SST-Real.
"""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.architectures.sst_real.network import SSTReal

Loss = Callable[[Tensor, Tensor], Tensor]
GUIDE_SHARE = 0.25


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How fine the grid of noise levels is.

    Attributes:
        steps: of the training.
        first: intervals at its beginning.
        last: intervals at its end.
        lowest, highest: noise levels at the ends of the grid.
        rho: exponent of the spacing, 1: even.
    """

    steps: int = 400_000
    first: int = 4
    last: int = 3
    lowest: float = 0.0
    highest: float = 1.0
    rho: float = 1.0

    def points(self, step: int) -> int:
        """Grid points N at a step, which count from 1."""
        period = self.steps // (abs(self.last - self.first) + 1)
        if self.first >= self.last:
            return max(self.first - step // period, self.last) + 1
        return min(self.first + step // period, self.last) + 1

    def grid(self, step: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The noise levels, (N,), ascending."""
        low, high = self.lowest ** (1 / self.rho), self.highest ** (1 / self.rho)
        even = torch.linspace(0, 1, self.points(step), dtype=dtype)
        return (low + even * (high - low)) ** self.rho


def charbonnier(a: Tensor, b: Tensor) -> Tensor:
    """A smooth mean of absolute differences."""
    return ((a - b).square() + 1e-12).sqrt().mean()


def pyramid(a: Tensor, b: Tensor, levels: int = 4) -> Tensor:
    """A reproducible stand-in for a perceptual loss: mean squared differences of gradients over a pyramid of halved pictures.

    The official training takes LPIPS with VGG16, whose weights no package ships; pass it, or any other, as `perceptual`.
    """
    total = a.new_zeros(())
    difference = a - b
    for level in range(levels):
        rows, columns = difference.diff(dim=2), difference.diff(dim=3)
        total = total + rows.square().mean() + columns.square().mean()
        if min(difference.shape[-2:]) < 4 or level == levels - 1:
            break
        difference = F.avg_pool2d(difference, 2)
    return total


def mixed(perceptual: Loss | None) -> Loss:
    """Half the perceptual loss and half Charbonnier; None leaves the first half out."""

    def loss(a: Tensor, b: Tensor) -> Tensor:
        pixels = 0.5 * charbonnier(a, b)
        return pixels if perceptual is None else pixels + 0.5 * perceptual(a, b)

    return loss


def noisy(x0: Tensor, y0: Tensor, z: Tensor, level: float | Tensor) -> Tensor:
    """The picture at a noise level: between photograph and enlargement, with noise."""
    return x0 + level * (y0 - x0) + level * z


def consistency_losses(
    network: SSTReal, x0: Tensor, y0: Tensor, low: Tensor, z: Tensor, grid: Tensor, index: int, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Losses of one step, of the guiding and of the last head; their sum is to be made smaller.

    Args:
        network: the student, in training mode; the target is itself, in eval mode.
        x0: photographs (B, 3, 4H, 4W) in -1..1.
        y0: enlarged bad pictures (B, 3, 4H, 4W) in -1..1.
        low: bad pictures (B, 3, H, W) in -1..1.
        z: standard normal noise (B, 3, 4H, 4W).
        grid: noise levels, ascending, (N,).
        index: 0..N-2, of the target's level.
        loss: of two pictures, such as `mixed(pyramid)`.
    """
    below, level = grid.to(x0)[index : index + 2]
    target = target_of(network, x0, y0, low, z, below)
    return student_losses(network, noisy(x0, y0, z, level), level.expand(len(x0)), low, target, loss)


def target_of(network: SSTReal, x0: Tensor, y0: Tensor, low: Tensor, z: Tensor, level: float | Tensor) -> Tensor:
    """What the network, in eval mode, makes of the lower noise level, without gradient: (B, 3, 4H, 4W); x0 at level 0.

    Arguments as in `consistency_losses`.
    """
    if level == 0:
        return x0
    training = network.training
    network.eval()
    with torch.no_grad():
        levels = torch.as_tensor(level, dtype=x0.dtype, device=x0.device).expand(len(x0))
        target = network.denoise(noisy(x0, y0, z, level), levels, low)[1]
    network.train(training)
    return target


def student_losses(
    network: SSTReal, x: Tensor, level: Tensor, low: Tensor, target: Tensor, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Losses of the guiding and of the last head.

    Args:
        network: the student, in training mode.
        x: noisy pictures (B, 3, 4H, 4W), see `noisy`.
        level: their noise levels, (B,).
        low: see `consistency_losses`.
        target: see `target_of`.
        loss: see `consistency_losses`.
    """
    guide, last = network.denoise(x, level, low)
    return GUIDE_SHARE * loss(guide, target), loss(last, target)


def decayed(network: SSTReal) -> tuple[list[str], list[str]]:
    """Names of the parameters with weight decay and of those without, as in the official training."""
    exempt = network.undecayed()
    names = [name for name, _ in network.named_parameters()]
    return [name for name in names if name not in exempt], [name for name in names if name in exempt]
