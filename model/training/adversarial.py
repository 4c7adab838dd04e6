"""Adversarial training: a second network learns to tell pictures that were made from real ones, and the first learns to mislead it.

L1 and L2 answer what cannot be known with an average, which is smooth; an opponent asks for texture as pictures have it. The opponent is
the U-Net with spectral normalisation of Real-ESRGAN (Wang et al., arXiv 2107.10833, section 3.3): an answer for each pixel.
"""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from flashrib.model.training.config import TrainConfig
from flashrib.model.training.parallel import World
from flashrib.model.training.steps import GraphedStep, autocast_of


class Discriminator(nn.Module):
    """A picture (B, 3, H, W) -> logits (B, 1, H, W), above 0 where it looks real; H and W multiples of 8.

    Args:
        channels: of the first level; they double three times.
    """

    def __init__(self, channels: int = 64) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(4)]
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(fine, coarse, 4, stride=2, padding=1, bias=False))
            for fine, coarse in itertools.pairwise(widths)
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(coarse, fine, 3, padding=1, bias=False))
            for fine, coarse in reversed(list(itertools.pairwise(widths)))
        )
        self.last = nn.Sequential(
            spectral_norm(nn.Conv2d(channels, channels, 3, padding=1, bias=False)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(channels, channels, 3, padding=1, bias=False)),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 1, 3, padding=1),
        )
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        maps = [F.leaky_relu(self.first(x), 0.2)]
        for layer in self.down:
            maps.append(F.leaky_relu(layer(maps[-1]), 0.2))
        x = maps.pop()
        for layer in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(layer(x), 0.2) + maps.pop()
        logits: Tensor = self.last(x)
        return logits

    @torch.no_grad()
    def refresh(self) -> None:
        """One step of the power iteration behind each spectral norm; between two calls the norms stay as they are."""
        for module in self.modules():
            if parametrize.is_parametrized(module, "weight"):
                module.train()
                _ = module.weight  # computed anew, which moves the iteration's vectors
                module.eval()


class Opponent:
    """A discriminator, its optimizer, and both halves of the game.

    Args:
        config: of the training; learning rates and betas are those of the network.
        device: of the training.
        channels: see `Discriminator`.
    """

    def __init__(self, config: TrainConfig, device: torch.device, channels: int = 64) -> None:
        self.network = Discriminator(channels).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=config.lr,
            betas=(config.betas[0], config.betas[1]),
            fused=device.type == "cuda",
        )
        self._autocast, self._graphs = autocast_of(config, device), device.type == "cuda"
        self._graphed: GraphedStep | None = None

    def misled(self, made: Tensor) -> Tensor:
        """The loss of who made the picture: how sure the opponent is that it was made; only `made` gets a gradient."""
        self.network.requires_grad_(False)
        return self._loss(made, True)

    def step(self, made: Tensor, real: Tensor, rate: float, world: World) -> None:
        """Learn to tell `made` from `real`, both (B, 3, H, W) in 0..1, without gradients of their own."""
        self.network.requires_grad_(True)
        self.network.refresh()
        self.optimizer.zero_grad(set_to_none=True)
        if self._graphs:
            if self._graphed is None:
                self._graphed = GraphedStep(self.network, self._told_apart, (made, real))
            self._graphed(made, real)
        else:
            self._told_apart(made, real).backward()  # type: ignore[no-untyped-call]  # untyped in torch
        world.average_gradients(self.network)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """What a run is continued from."""
        return {"params": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`.

        Raises:
            Exception: whatever torch raises for a state that is not one.
        """
        self.network.load_state_dict(state["params"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _told_apart(self, made: Tensor, real: Tensor) -> Tensor:
        return (self._loss(made, False) + self._loss(real, True)) / 2

    def _loss(self, picture: Tensor, real: bool) -> Tensor:
        with self._autocast():
            logits = self.network(picture.contiguous(memory_format=torch.channels_last))
        return F.softplus(-logits.float() if real else logits.float()).mean()
