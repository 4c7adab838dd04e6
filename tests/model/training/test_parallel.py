"""Two processes on the CPU train one network: the same weights in both, gradients averaged, interrupted and continued alike."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flashrib.model.training.parallel import World, join, started
from flashrib.runtime.pictures.files import write_picture
from flashrib.runtime.pictures.picture import Picture
from tests.places import ROOT
from tests.runtime.models import write_checkpoint

AVERAGED = """
import sys
import torch
from torch import nn
from flashrib.model.training.parallel import join

world = join(torch.device("cpu"))
torch.manual_seed(world.rank)
network = nn.Linear(3, 2)
world.start(network)
network(torch.full((1, 3), float(world.rank))).sum().backward()
world.average_gradients(network)
sys.stdout.write(f"weight {world.rank} {network.weight.sum().item()}\\n")  # at once, so that lines stay whole
assert torch.allclose(network.weight.grad, torch.full((2, 3), 0.5)), network.weight.grad
generator = torch.Generator()
world.seed(generator, 7, 11)
sys.stdout.write(f"seed {world.rank} {generator.initial_seed()}\\n")
assert world.agree(world.rank == 0, torch.device("cpu"))
world.end()
"""

TRAINED = """
import sys
sys.path.append(".")
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.training import loop
from flashrib.runtime.cli import main
from tests.model.networks import SMALL

load = loop.load_model
loop.build_model = lambda name, scale: network_from_config(SMALL)
loop.load_model = lambda path, *_, **__: load(path)
sys.exit(main(sys.argv[1:]))
"""


def torchrun(*arguments: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_gradients_are_averaged(tmp_path: Path) -> None:
    script = tmp_path / "averaged.py"
    script.write_text(AVERAGED)
    lines = [line.split() for line in torchrun(str(script)).splitlines()]
    weights = {rank: value for kind, rank, value in lines if kind == "weight"}
    seeds = {rank: value for kind, rank, value in lines if kind == "seed"}
    assert weights["0"] == weights["1"]
    assert seeds["0"] != seeds["1"]


@pytest.mark.slow
def test_a_run_of_two_processes(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    random = np.random.default_rng(0)
    for i in range(2):
        picture = Picture(random.integers(0, 256, (48, 48, 3), np.uint8))
        write_picture(tmp_path / "data" / f"{i}.png", picture)
    config = tmp_path / "run.toml"
    config.write_text(
        'data = ["data"]\narch = "sst-light"\npatch = 8\nbatch = 1\nsteps = 2\nwarmup = 0\nvalidation = 1\nprecision = "fp32"\n'
    )
    script = tmp_path / "train.py"
    script.write_text(TRAINED)
    start = tmp_path / "start.safetensors"
    write_checkpoint(start)
    options = ["-o", str(tmp_path / "run"), "--start", str(start), "--device", "cpu"]
    # without "--" torchrun takes --start for an option of its own
    printed = torchrun("--", str(script), "train", str(config), *options)
    assert printed.splitlines() == [str(tmp_path / "run" / "weights.safetensors")]
    weights = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(value.isfinite().all() for value in weights.values())
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2  # a heading, and one row from one process


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert join(torch.device("cpu")) == World()
    monkeypatch.setenv("RANK", "1")  # of something else than torchrun, which sets all three
    assert started() == World()
    assert started().first
    generator = torch.Generator().manual_seed(3)
    World().seed(generator, 1, 2)
    assert generator.initial_seed() == 3
    assert World(1, 2, 1).device(torch.device("cpu")) == torch.device("cpu")
    assert World(1, 2, 1).device(torch.device("cuda")) == torch.device("cuda", 1)
