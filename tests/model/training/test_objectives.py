"""SST-Real's consistency training through the loop: it learns, resumes exactly, and takes the perceptual loss that it is told."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from flashrib.model import load_model
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.architectures.sst_real.network import SSTReal
from flashrib.model.training import loop
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.consistency import Schedule, consistency_losses, mixed, pyramid
from flashrib.model.training.loop import train
from flashrib.model.training.objectives import Consistency, Regression, objective_for
from flashrib.model.training.state import WEIGHTS
from flashrib.runtime.errors import UsageError
from tests.model.architectures.sst_real.test_recognise import SMALL

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "build_model", lambda name, scale: started())


def started() -> SSTReal:
    """A small network whose layers compute something: no modulation starts at zero."""
    network = network_from_config(SMALL)
    assert isinstance(network, SSTReal)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape))
    return network


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 256, (72, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return TrainConfig(
        data=(str(folder),),
        arch="sst-real",
        scale=4,
        degradation="photo",
        validation=1,
        patch=16,
        batch=2,
        steps=4,
        optimizer="adamw",
        weight_decay=2e-4,
        warmup=1,
        validate_every=4,
        save_every=1,
        precision="fp32",
    )


def test_resumed_run_equals_uninterrupted_one(config: TrainConfig, tmp_path: Path) -> None:
    """Dropout, noise, levels and degradations included."""
    rows: list[dict[str, float]] = []
    train(config, tmp_path / "whole", device="cpu", progress=False, on_log=rows.append)
    for _ in range(config.steps):
        train(config, tmp_path / "parts", device="cpu", progress=False, minutes=0)
    whole, parts = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert load_model(tmp_path / "whole" / WEIGHTS).config == SMALL
    assert (len(rows), rows[0]["step"]) == (1, 4)
    assert 0 < rows[0]["loss"] < 10
    assert 0 < rows[0]["psnr_y"] < 60


@pytest.mark.parametrize("seed", range(4))
def test_the_two_parts_are_the_official_step(seed: int, config: TrainConfig) -> None:
    """`batch` and `loss` together are `consistency_losses`, whatever level is drawn; dropout is seeded alike."""
    torch.manual_seed(0)
    network = started().double().train()
    objective = Consistency(network, config, CPU, None, mixed(pyramid))
    random = torch.Generator().manual_seed(seed)
    low, high = torch.rand(2, 3, 16, 16, generator=random).double(), torch.rand(2, 3, 64, 64, generator=random).double()
    inputs = objective.batch(low, high, seed, step=0)
    torch.manual_seed(1)
    found = objective.loss(*(x.double() for x in inputs))
    enlarged = torch.nn.functional.interpolate(low, scale_factor=4, mode="bicubic").clamp(0, 1)
    y0 = 2 * (enlarged * 255).round() / 255 - 1
    z = torch.randn(high.shape, generator=torch.Generator().manual_seed(seed)).double()
    grid = Schedule(4).grid(1)
    losses = []
    for index in range(4):
        torch.manual_seed(1)
        each = consistency_losses(network, 2 * high - 1, y0, 2 * low - 1, z, grid, index, mixed(pyramid))
        losses.append(float((each[0] + each[1]).detach()))
    assert min(abs(float(found.detach()) - loss) for loss in losses) <= 1e-5 * float(found.detach())


def test_all_levels_are_drawn(config: TrainConfig) -> None:
    objective = Consistency(started(), config, CPU, None, mixed(None))
    low, high = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 64, 64)

    def levels(step: int) -> set[float]:
        return {round(float(objective.batch(low, high, seed, step)[1]), 4) for seed in range(40)}

    assert levels(0) == {0.25, 0.5, 0.75, 1.0}
    assert levels(3) == {0.3333, 0.6667, 1.0}


def test_the_perceptual_loss_from_python(config: TrainConfig, tmp_path: Path) -> None:
    seen = []

    def perceptual(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a.shape)
        return (a - b).square().mean()

    given = dataclasses.replace(config, perceptual="given", steps=2, validate_every=2)
    train(given, tmp_path, device="cpu", progress=False, perceptual=perceptual)
    assert seen == [(2, 3, 64, 64)] * 4  # two heads, two steps


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({"perceptual": "given"}, None, "belong together: one is missing"),
        ({}, pyramid, "belong together: one is missing"),
        ({"qat": "fp8", "start": "x"}, None, "is not for sst-real"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, Any], given: Any, message: str, config: TrainConfig) -> None:
    network = started()
    with pytest.raises(UsageError, match=message):
        objective_for(network, network, dataclasses.replace(config, **changes), CPU, None, given)


def test_other_networks_have_no_perceptual_loss(config: TrainConfig) -> None:
    from tests.model.networks import SMALL as OTHER

    network = network_from_config(OTHER)
    plain = dataclasses.replace(config, arch="sst-light", scale=2)
    assert isinstance(objective_for(network, network, plain, CPU, None, None), Regression)
    with pytest.raises(UsageError, match="perceptual = 'none' is for sst-real"):
        objective_for(network, network, dataclasses.replace(plain, perceptual="none"), CPU, None, None)
