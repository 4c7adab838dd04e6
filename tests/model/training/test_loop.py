"""The loop learns, resumes exactly, and refuses what it cannot continue."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flashrib.model import SSTConfig, load_model
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.training import loop
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.loop import STATE, WEIGHTS, learning_rate, train
from flashrib.runtime.errors import CheckpointError, UsageError

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
    assert [row.split(",")[0] for row in rows] == ["3", "6"]


def test_other_configuration_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    run(config, tmp_path, minutes=0)
    with pytest.raises(UsageError, match="a run with another batch, steps"):
        run(dataclasses.replace(config, steps=7, batch=2), tmp_path)


def test_damaged_state_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="delete it to start anew"):
        run(config, tmp_path)


def test_a_flipped_bit_in_the_state_is_found(config: TrainConfig, tmp_path: Path) -> None:
    run(config, tmp_path, minutes=0)
    content = bytearray((tmp_path / STATE).read_bytes())
    content[len(content) // 2] ^= 1  # within the weights, which torch.load would take as they are
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged, the run cannot be continued"):
        run(config, tmp_path)


def test_learning_rate() -> None:
    config = TrainConfig(data=("x",), steps=1000, warmup=100, lr=1e-3, lr_final=1e-5)
    assert learning_rate(0, config) == pytest.approx(1e-5)
    assert learning_rate(99, config) == pytest.approx(1e-3)
    assert learning_rate(550, config) == pytest.approx((1e-3 + 1e-5) / 2)
    assert learning_rate(1000, config) == pytest.approx(1e-5)


def test_learns_a_picture(config: TrainConfig, tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    longer = dataclasses.replace(config, steps=300, validate_every=100, save_every=300, warmup=5, ema=0.8)
    train(longer, tmp_path, device="cpu", progress=False, on_log=rows.append)
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert rows[-1]["psnr_y"] > rows[0]["psnr_y"] + 3
