"""Pictures that are exchanged while the training goes on: which lie there is a matter of seed and step alone."""

import dataclasses
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flashrib.model.architectures.registry import network_from_config
from flashrib.model.training import loop, stream
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.loop import train
from flashrib.model.training.parallel import World
from flashrib.model.training.state import WEIGHTS
from flashrib.model.training.stream import StreamSampler
from flashrib.runtime.errors import PictureError, UsageError
from tests.model.training.test_loop import TINY

PICTURES = 12
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Threads read in place of processes, whose start takes seconds."""
    if "processes" in request.node.name:
        return

    def executor() -> Executor:
        return ThreadPoolExecutor(2)

    monkeypatch.setattr(stream, "executor", executor)
    monkeypatch.setattr(loop, "build_model", lambda name, scale: network_from_config(TINY))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in folders below, each of one gray that is its number."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(PICTURES):
        (folder / f"{i % 3}").mkdir(exist_ok=True)
        Image.fromarray(np.full((20 + 4 * i, 24, 3), i, np.uint8)).save(folder / f"{i % 3}" / f"{i}.png")
    return folder


@pytest.fixture
def config(folder: Path) -> TrainConfig:
    return TrainConfig(data=(str(folder),), recursive=True, pool=5, rotate=2, patch=8, validation=1, warmup=1, steps=6)


def held(sampler: StreamSampler) -> list[int]:
    """Numbers of the pictures that lie on the device, in order."""
    ends = (sampler.sizes.prod(1).cumsum(0) - 1).tolist()
    return [int(sampler.low[end, 0]) for end in ends]


def sampler_of(config: TrainConfig, folder: Path, world: World | None = None) -> StreamSampler:
    return StreamSampler(sorted(folder.rglob("*.png")), {}, config, world or World(), CPU)


def test_pictures_rotate(config: TrainConfig, folder: Path) -> None:
    sampler = sampler_of(config, folder)
    seen = []
    for step in range(2 * 2 * PICTURES):
        sampler.turn(step)
        seen.append(held(sampler))
        low, high = sampler.sample(3, torch.Generator().manual_seed(step))
        assert torch.equal(low.amax((1, 2, 3)), high.amin((1, 2, 3)))  # of one picture
        assert {round(float(v) * 255) for v in low.amax((1, 2, 3))} <= set(seen[-1])
    assert all(len(pictures) == 5 for pictures in seen)
    assert seen[0] == seen[1] != seen[2]
    assert seen[2][:4] == seen[0][1:]  # an eighth, at least one, is exchanged
    new = [pictures[-1] for pictures in seen[2::2]]
    first = seen[0] + new
    assert sorted(first[:PICTURES]) == sorted(first[PICTURES : 2 * PICTURES]) == list(range(PICTURES))  # each once
    assert first[:PICTURES] != first[PICTURES : 2 * PICTURES]
    sampler.close()


@pytest.mark.parametrize("step", [0, 3, 31])
def test_a_continued_run_has_the_same_pictures(step: int, config: TrainConfig, folder: Path) -> None:
    one, other = sampler_of(config, folder), sampler_of(config, folder)
    for earlier in range(step + 1):
        one.turn(earlier)
    other.turn(step)
    assert held(one) == held(other)
    seeded = sampler_of(dataclasses.replace(config, seed=1), folder)
    seeded.turn(step)
    assert held(seeded) != held(one)


def test_several_processes_share_the_sequence(config: TrainConfig, folder: Path) -> None:
    two = dataclasses.replace(config, pool=6)
    samplers = [sampler_of(two, folder, World(rank, 2, rank)) for rank in range(2)]
    for sampler in samplers:
        sampler.turn(0)
    assert sorted(held(samplers[0]) + held(samplers[1])) == list(range(PICTURES))


def test_the_loop_resumes(config: TrainConfig, tmp_path: Path) -> None:
    whole = dataclasses.replace(config, batch=1, precision="fp32", validate_every=6, save_every=1)
    train(whole, tmp_path / "whole", device="cpu", progress=False)
    for _ in range(whole.steps):
        train(whole, tmp_path / "parts", device="cpu", progress=False, minutes=0)
    one, other = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "parts"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_damaged_and_small_pictures(config: TrainConfig, folder: Path, tmp_path: Path) -> None:
    large = dataclasses.replace(config, patch=64)
    with pytest.raises(UsageError, match="none of the 5 pictures has a side of 128 pixels: make patch smaller"):
        sampler_of(large, folder).turn(0)
    for i in range(6):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"\d\.png"):
        sampler_of(config, tmp_path).turn(0)


def test_processes_read_pictures(config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real executor, with one process."""
    monkeypatch.setattr(stream, "MOST_WORKERS", 1)
    sampler = sampler_of(config, folder)
    sampler.turn(0)
    assert len(held(sampler)) == 5
    sampler.close()
