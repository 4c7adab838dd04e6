"""A network from outside that uses the operator of `toy.py`: an architecture made of a row of the table and nothing else."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.architecture import Architecture, Hints
from flashrib.model.config import Input, NetworkConfig
from flashrib.model.deploy import Deployed
from flashrib.model.network import Network
from flashrib.model.state_dict import Checkpoint


def neighbours(x: Tensor, weights: Tensor, reach: int) -> Tensor:
    """The operator in PyTorch; while a network is exported, its node."""
    if torch.onnx.is_in_onnx_export():
        y, _ = torch.onnx.ops.symbolic_multi_out(
            "flashrib::Neighbours",
            (x, weights),
            attrs={"reach": reach},
            dtypes=(x.dtype, torch.float32),
            shapes=(x.shape, ()),
            version=1,
        )
        return y
    padded = F.pad(x, (reach, reach))
    return weights * padded.unfold(-1, 2 * reach + 1, 1).sum(-1)


@dataclasses.dataclass(frozen=True)
class ToyConfig(NetworkConfig):
    name: str = "toy"
    reaches: tuple[int, ...] = (1, 3)

    family = "toy"
    task = "upscale"

    @property
    def scale(self) -> int:
        return 2

    def inputs(self) -> tuple[Input, ...]:
        return (Input("input", ("batch", 3, "height", "width"), (1, 3, 7, 11)),)


class Toy(Network):
    config: ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.toy_weights = nn.Parameter(torch.rand(len(config.reaches), 16, 1, 1) / 8)
        self.last = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.first(picture)
        for weights, reach in zip(self.toy_weights, self.config.reaches, strict=True):
            x = x + neighbours(x, weights, reach)
        return F.pixel_shuffle(self.last(x), 2)


class DeployedToy(Deployed):
    def __init__(self, network: Toy) -> None:
        super().__init__(network.config)
        self.inner = network

    def forward(self, picture: Tensor) -> Tensor:
        y: Tensor = self.inner(picture)
        return y


def fold(network: Toy, *, head_multiple: int = 1, dtype: torch.dtype = torch.float32) -> DeployedToy:
    return DeployedToy(network).eval()


@dataclasses.dataclass(frozen=True)
class Recognised:
    checkpoint: Checkpoint

    def resolve(self, hints: Hints) -> tuple[ToyConfig, Mapping[str, Tensor]]:
        return ToyConfig(), self.checkpoint.state_dict

    def describe(self, hints: Hints) -> dict[str, Any]:
        return {"architecture": "toy"}


ARCHITECTURE = Architecture(
    family="toy",
    title="a toy",
    config=ToyConfig,
    presets=("toy",),
    preset=lambda name, scale: ToyConfig(),
    matches=lambda keys: "toy_weights" in keys,
    recognise=Recognised,
    build=Toy,
    fold=fold,
    scales=(2,),
)
