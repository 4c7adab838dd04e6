"""The opponent learns, the network gets its gradient and nothing else, and a run with one resumes exactly."""

import copy
import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from flashrib.model.training import loop
from flashrib.model.training.adversarial import Discriminator, Opponent
from flashrib.model.training.config import TrainConfig
from flashrib.model.training.objectives import Regression
from flashrib.model.training.parallel import World
from flashrib.model.training.state import STATE
from flashrib.runtime.errors import CheckpointError, UsageError
from tests.model.training.test_loop import config, run, tiny_network  # noqa: F401  # fixtures

CPU = torch.device("cpu")
OPTIONS = TrainConfig(data=("",), precision="fp32", adversarial=0.1, lr=1e-3)


def pictures(seed: int) -> tuple[Tensor, Tensor]:
    """Smooth ones and rough ones, (2, 3, 16, 24)."""
    rough = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(seed))
    return rough.mean((2, 3), keepdim=True).expand_as(rough).contiguous(), rough


def test_it_learns_to_tell_them_apart() -> None:
    torch.manual_seed(0)
    opponent = Opponent(OPTIONS, CPU, channels=8)
    before = [float(opponent.misled(x).detach()) for x in pictures(99)]
    for step in range(15):
        opponent.step(*pictures(step), 1e-3, World())
    made, real = (float(opponent.misled(x).detach()) for x in pictures(99))
    assert abs(before[0] - before[1]) < 0.1
    assert made > real + 0.5


def test_spectral_norms_are_one_after_some_refreshes() -> None:
    network = Discriminator(8)
    for _ in range(50):
        network.refresh()
    layers = [m for m in network.modules() if parametrize.is_parametrized(m, "weight")]
    assert len(layers) == 8
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.02)
    still = copy.deepcopy(network.state_dict())
    network(torch.rand(1, 3, 8, 8))
    assert all(torch.equal(value, still[name]) for name, value in network.state_dict().items())


def test_the_network_alone_gets_a_gradient() -> None:
    opponent = Opponent(OPTIONS, CPU, channels=8)
    made = torch.rand(1, 3, 16, 16, requires_grad=True)
    opponent.misled(made).backward()
    assert made.grad is not None
    assert float(made.grad.abs().sum()) > 0
    assert all(p.grad is None for p in opponent.network.parameters())


def test_loss_is_the_distance_and_the_answer() -> None:
    opponent = Opponent(OPTIONS, CPU, channels=8)
    layer = torch.nn.Upsample(scale_factor=2)
    low, high = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16)
    for loss, distance in (("l1", (layer(low) - high).abs().mean()), ("l2", (layer(low) - high).square().mean())):
        options = dataclasses.replace(OPTIONS, loss=loss)
        alone = Regression(layer, options, CPU, None).loss(low, high)
        both = Regression(layer, options, CPU, None, opponent).loss(low, high)
        assert float(alone.detach()) == pytest.approx(float(distance), rel=1e-6)
        assert float((both - alone).detach()) == pytest.approx(
            0.1 * float(opponent.misled(layer(low)).detach()), rel=1e-4
        )


def test_resumed_run_equals_uninterrupted_one(
    config: TrainConfig,  # noqa: F811  # the fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "Opponent", functools.partial(Opponent, channels=8))
    options = dataclasses.replace(config, adversarial=0.1, steps=3)
    whole = run(options, tmp_path / "whole")
    for _ in range(options.steps):
        parts = run(options, tmp_path / "parts", minutes=0)
    without = run(dataclasses.replace(options, adversarial=0.0), tmp_path / "without")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert any(not torch.equal(whole[key], without[key]) for key in whole)

    state = torch.load(tmp_path / "parts" / STATE, weights_only=True)
    del state["opponent"]
    torch.save(state, tmp_path / "parts" / STATE)
    with pytest.raises(CheckpointError, match="damaged"):
        run(options, tmp_path / "parts", minutes=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversarial": -0.1}, "adversarial = -0.1 is out of range"),
        ({"loss": "l3"}, "loss = 'l3' must be one of l1, l2"),
        ({"adversarial": 0.1, "accumulate": 2}, "leave one of them out"),
        ({"adversarial": 0.1, "patch": 17}, "34 is none"),
    ],
)
def test_what_does_not_go_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainConfig(data=("",), **changes)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.gpu
def test_a_step_on_a_gpu() -> None:
    """As a CUDA graph, the same as on the CPU."""
    torch.manual_seed(0)
    mine, theirs = Opponent(OPTIONS, torch.device("cuda"), channels=8), Opponent(OPTIONS, CPU, channels=8)
    mine.network.load_state_dict(theirs.network.state_dict())
    torch.backends.cudnn.allow_tf32 = False
    for step in range(3):
        made, real = pictures(step)
        mine.step(made.cuda(), real.cuda(), 1e-4, World())
        theirs.step(made, real, 1e-4, World())
    for name, value in theirs.network.state_dict().items():
        assert torch.allclose(mine.network.state_dict()[name].cpu(), value, rtol=1e-2, atol=2e-4), name
