"""The loop learns, resumes exactly, and refuses what it cannot continue."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flashrib.model import SSTConfig, load_model
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.training import loop
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import PatchSampler, load_pairs, pictures_of, split
from flashrib.model.training.log import CURVES, LOG
from flashrib.model.training.loop import train
from flashrib.model.training.optimizer import learning_rate, parameter_groups
from flashrib.model.training.state import LOCK, STATE, WEIGHTS
from flashrib.runtime.artifacts.lock import locked
from flashrib.runtime.errors import CheckpointError, FlashribError, UsageError

TINY = SSTConfig("sst-custom", dim=12, windows=((4, 4), (8, 8)), heads=(3, 3), ranks=(3, 5), blocks=1, ffn_dim=18)


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train a network that takes milliseconds per step in place of the preset."""
    monkeypatch.setattr(loop, "build_model", lambda name, scale: network_from_config(TINY))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[:40, :48] / 48
    for i in range(3):
        wave = np.stack([np.sin((5 + i) * x * (c + 1) + 7 * y) for c in range(3)], axis=-1)
        Image.fromarray((127 + 120 * wave).astype(np.uint8)).save(folder / f"{i}.png")
    return TrainConfig(
        data=(str(folder),),
        validation=1,
        patch=16,
        batch=1,
        steps=6,
        warmup=1,
        validate_every=3,
        save_every=2,
        precision="fp32",
    )


def run(config: TrainConfig, folder: Path, minutes: float = 60) -> dict[str, torch.Tensor]:
    train(config, folder, device="cpu", minutes=minutes, progress=False)
    return load_file(folder / WEIGHTS)


def test_resumed_run_equals_uninterrupted_one(config: TrainConfig, tmp_path: Path) -> None:
    whole = run(config, tmp_path / "whole")
    step_after_interruption = []
    for _ in range(config.steps):
        run(config, tmp_path / "parts", minutes=0)  # one step at a time
        state = torch.load(tmp_path / "parts" / STATE, weights_only=True)
        step_after_interruption.append(state["step"])
    assert step_after_interruption == [1, 2, 3, 4, 5, 6]
    parts = load_file(tmp_path / "parts" / WEIGHTS)
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert load_model(tmp_path / "whole" / WEIGHTS).config == TINY
    rows = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert rows[0] == "step,loss,psnr_y,seconds"
    assert [row.split(",")[0] for row in rows[1:]] == ["3", "6"]


def test_other_configuration_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    run(config, tmp_path, minutes=0)
    with pytest.raises(UsageError, match="a run with another batch, steps"):
        run(dataclasses.replace(config, steps=7, batch=2), tmp_path)


def test_damaged_state_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="delete it to start again"):
        run(config, tmp_path)


def test_a_flipped_bit_in_the_state_is_found(config: TrainConfig, tmp_path: Path) -> None:
    run(config, tmp_path, minutes=0)
    content = bytearray((tmp_path / STATE).read_bytes())
    weights = torch.load(tmp_path / STATE, weights_only=True)["params"]["body.0.0.attn.to_hidden"].numpy().tobytes()
    content[content.index(weights)] ^= 1  # which torch.load would take as it is
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged, the run cannot be continued"):
        run(config, tmp_path)


def test_learning_rate() -> None:
    config = TrainConfig(data=("x",), steps=1000, warmup=100, lr=1e-3, lr_final=1e-5)
    assert learning_rate(0, config) == pytest.approx(1e-5)
    assert learning_rate(99, config) == pytest.approx(1e-3)
    assert learning_rate(550, config) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(1000, config) == pytest.approx(1e-5)


def test_learning_rate_in_steps() -> None:
    """The official schedule: the rate halves at each milestone, the warm-up is part of the count."""
    config = TrainConfig(
        data=("x",), steps=1000, warmup=100, lr=1e-3, schedule="multistep", milestones=(500, 800), gamma=0.5
    )
    rates = [learning_rate(step, config) for step in (0, 49, 99, 100, 499, 500, 799, 800, 999)]
    assert rates == pytest.approx([1e-5, 5e-4, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4])


def test_weight_decay_spares_what_the_network_names() -> None:
    network = network_from_config(TINY)
    network.undecayed = lambda: {"proj.bias"}
    decayed, exempt = parameter_groups(network, 0.1)
    assert [id(p) for p in exempt["params"]] == [id(network.get_parameter("proj.bias"))]
    assert len(decayed["params"]) == len(list(network.parameters())) - 1
    assert exempt["weight_decay"] == 0.0
    assert len(parameter_groups(network, 0.0)) == 1


def test_three_steps_of_adamw_equal_their_definition(config: TrainConfig, tmp_path: Path) -> None:
    """Decoupled decay, bias correction, no clipping, an average that starts from the initial weights: in float64 by hand."""
    betas, decay, rate, steps = (0.9, 0.9), 0.5, 2e-4, 3
    torch.manual_seed(config.seed)
    network = network_from_config(TINY)
    sampler = PatchSampler(
        load_pairs(split(pictures_of(config.data), 1)[0], 2, (1.0,), 16), config, torch.device("cpu")
    )
    generator = torch.Generator().manual_seed(config.seed)
    weights = {name: p.detach().double() for name, p in network.named_parameters()}
    average = {name: p.clone() for name, p in weights.items()}
    first, second = ({name: torch.zeros_like(p) for name, p in weights.items()} for _ in range(2))
    for step in range(1, steps + 1):
        low, high = sampler.sample(1, generator)
        network.zero_grad()
        torch.nn.functional.l1_loss(network(low), high).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            gradient = parameter.grad.double()
            first[name] = betas[0] * first[name] + (1 - betas[0]) * gradient
            second[name] = betas[1] * second[name] + (1 - betas[1]) * gradient**2
            move = first[name] / (1 - betas[0] ** step) / ((second[name] / (1 - betas[1] ** step)).sqrt() + 1e-8)
            weights[name] = weights[name] * (1 - rate * decay) - rate * move
            average[name] = 0.9 * average[name] + 0.1 * weights[name]
            parameter.data.copy_(weights[name])
    official = dataclasses.replace(
        config, optimizer="adamw", betas=betas, weight_decay=decay, lr=rate, schedule="multistep", warmup=0, steps=steps,
        ema=0.9, ema_warmup=False, clip=0.0, validate_every=3,
    )  # fmt: skip
    found = run(official, tmp_path)
    for name, wanted in average.items():
        rounding = 2 * torch.finfo(torch.float32).eps * wanted.abs().max()
        assert (found[name].double() - wanted).abs().max() <= 0.01 * rate + rounding, name


def test_accumulated_gradients_are_those_of_the_larger_batch(config: TrainConfig, tmp_path: Path) -> None:
    """Two batches of one patch: their mean gradient decides, so the loss of the step is the mean of both."""
    rows: list[list[dict[str, float]]] = [[], []]
    for found, changes in zip(
        rows, ({"accumulate": 2, "steps": 1}, {"steps": 2, "lr": 1e-12, "lr_final": 1e-13}), strict=True
    ):
        values: dict[str, Any] = {"warmup": 0, "validate_every": 2} | changes
        train(
            dataclasses.replace(config, **values),
            tmp_path / str(len(changes)),
            device="cpu",
            progress=False,
            on_log=found.append,
        )
    assert rows[0][0]["loss"] == pytest.approx(rows[1][0]["loss"], rel=1e-5)


def test_named_validation_sets_have_columns_and_curves(config: TrainConfig, tmp_path: Path) -> None:
    sets = {"waves": config.data[0], "again": config.data[0]}
    run(dataclasses.replace(config, validation=0, validation_sets=sets), tmp_path)
    header, *rows = (tmp_path / LOG).read_text().splitlines()
    assert header == "step,loss,psnr_y,seconds,psnr_y again,psnr_y waves"
    first = rows[0].split(",")
    assert first[4] == first[5] == first[2]
    with Image.open(tmp_path / CURVES) as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(100_000) or []}
    assert {(0x1F, 0x6F, 0xB2), (0xB2, 0x3B, 0x1F)} <= colours  # of two curves
    with pytest.raises(UsageError, match="another validation_sets"):
        run(dataclasses.replace(config, validation=0, validation_sets={"one": config.data[0]}), tmp_path)


def test_learns_a_picture(config: TrainConfig, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    longer = dataclasses.replace(config, steps=300, validate_every=100, save_every=300, warmup=5, ema=0.8)
    train(longer, tmp_path, device="cpu", progress=False, on_log=rows.append)
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[-1]["psnr_y"] > rows[0]["psnr_y"] + 3


def test_two_trainings_in_one_folder_are_refused(tmp_path: Path, config: TrainConfig) -> None:
    with locked(tmp_path / LOCK, "the folder"), pytest.raises(FlashribError, match="written by another process"):
        train(config, tmp_path, device="cpu", progress=False)
    train(config, tmp_path, device="cpu", progress=False)


def test_degraded_run_continues_to_the_same_weights(config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(config, degradation="photo", batch=10, accumulate=2, steps=2, validate_every=1)
    whole = run(config, tmp_path / "whole")
    run(config, tmp_path / "parts", minutes=0)
    parts = run(config, tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    clean = run(dataclasses.replace(config, degradation="bicubic"), tmp_path / "clean")
    assert not all(torch.equal(whole[key], clean[key]) for key in whole)
    row = (tmp_path / "whole" / LOG).read_text().splitlines()[1]
    assert row.split(",")[2] != (tmp_path / "clean" / LOG).read_text().splitlines()[1].split(",")[2]
