"""Quantization-aware finetuning: what it rounds, which way gradients go, and that it helps."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from flashrib.model import preset
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.model.config import NetworkConfig
from flashrib.model.training.config import TrainConfig, read_config
from flashrib.model.training.loop import train
from flashrib.model.training.qat import QuantizationAware, round_through, rounded_activation, rounded_weight
from flashrib.runtime.errors import UsageError
from tests.model.networks import SMALL, SMALL_ESC, small_network
from tests.runtime.picture_files import noise

MODES = pytest.mark.parametrize("mode", ["int8", "fp8"])
STEP = {"int8": 1 / 127, "fp8": 1 / 16}  # largest error of a value beside the largest one


@MODES
def test_the_gradient_passes_straight_through(mode: str) -> None:
    x = torch.linspace(-1, 1, 50, requires_grad=True)
    y = round_through(x, torch.tensor(0.01), mode)
    y.square().sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * y.detach())
    assert 0 < (y - x).abs().max() <= 0.07


@MODES
def test_weights(mode: str) -> None:
    """In INT8 a small output channel is as exact as a large one."""
    weight = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1.0, 1e-3, 30, 1]
    ).reshape(4, 1, 1, 1)
    error = (rounded_weight(weight, mode) - weight).abs().amax((1, 2, 3)) / weight.abs().amax((1, 2, 3))
    assert 0 < error.max() <= STEP[mode]


@MODES
def test_a_constant_offset_costs_nothing(mode: str) -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    moved = x + torch.tensor([100.0, -50, 0]).reshape(1, 3, 1, 1)
    assert (rounded_activation(moved, mode) - moved).abs().max() <= 0.05
    assert (rounded_activation(moved, mode) - moved).abs().max() > 0


@pytest.mark.parametrize(("config", "count"), [(SMALL, 11), (SMALL_ESC, 9)], ids=["sst", "esc"])
def test_which_layers(config: NetworkConfig, count: int) -> None:
    weights = QuantizationAware(small_network(config), "int8").weights
    assert len(weights) == count
    assert not [name for name in weights if name.startswith(("proj.", "upsampler", "last")) or "dwc" in name]


@MODES
def test_close_to_the_network_and_its_parameters_stay(mode: str) -> None:
    network = small_network()
    names = list(network.state_dict())
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(x)
        aware = QuantizationAware(network, mode)
        y = aware(x)
        with aware.rounded():
            inside = network(x)
    assert torch.equal(inside, y)
    assert 0 < (y - expected).std() < 0.1 * expected.std()
    assert list(network.state_dict()) == names
    assert all(
        torch.equal(a, b)
        for a, b in zip(network.state_dict().values(), small_network().state_dict().values(), strict=True)
    )


def test_every_rounded_layer_learns() -> None:
    network = small_network()
    aware = QuantizationAware(network, "fp8")
    aware(torch.rand(1, 3, 24, 24)).square().mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    for name in aware.weights:
        gradient = gradients[name]
        assert gradient is not None
        assert gradient.abs().max() > 0


def pictures(folder: Path) -> None:
    for index in range(3):
        Image.fromarray(noise(40, 40 + index, 3)).save(folder / f"{index}.png")


@pytest.mark.slow
def test_a_run(tmp_path: Path) -> None:
    """Starts from the checkpoint, changes it a little, can be interrupted, and saves weights under their usual names."""
    pictures(tmp_path)
    torch.manual_seed(0)
    start = network_from_config(preset("sst-light", 2)).eval()
    save_safetensors(tmp_path / "start.safetensors", start)
    (tmp_path / "run.toml").write_text(
        "data = ['.']\nstart = 'start.safetensors'\nqat = 'int8'\nvalidation = 1\nbatch = 1\npatch = 16\nsteps = 3\nwarmup = 0\n"
        "lr = 1e-4\nprecision = 'fp32'\n"
    )
    config = read_config(tmp_path / "run.toml")
    rows: list[dict[str, float]] = []
    weights = train(config, tmp_path / "run", device="cpu", progress=False, on_log=rows.append)
    trained = load_model(weights)
    moved = [(a - b).abs().max().item() for a, b in zip(trained.parameters(), start.parameters(), strict=True)]
    assert 0 < max(moved) < 1e-3
    assert [row["step"] for row in rows] == [3]
    again = train(config, tmp_path / "run", device="cpu", progress=False)
    assert again == weights


def test_configurations_that_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match=r"qat = 'int8' finetunes a trained network: .*--start FILE"):
        TrainConfig(data=("x",), qat="int8")
    with pytest.raises(UsageError, match="qat = 'int4' must be one of int8, fp8"):
        TrainConfig(data=("x",), qat="int4", start="a")
    with pytest.raises(UsageError, match="compile = true does not go with"):
        TrainConfig(data=("x",), qat="int8", start="a", compile=True)
