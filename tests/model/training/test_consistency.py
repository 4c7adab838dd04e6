"""Consistency training is the official one: three steps of it, schedule, weight decay, initial values."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from flashrib.model import build_model
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.architectures.sst_real.network import SSTReal, SSTRealBlock, SSTRealLayer
from flashrib.model.training.consistency import (
    Schedule,
    consistency_losses,
    decayed,
    mixed,
    noisy,
    pyramid,
)
from tests.model.architectures.sst_real.test_recognise import SMALL
from tests.model.architectures.sst_real.vectors import config_from_official, load, network
from tests.official import max_abs
from tests.places import SHARED


def facts() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SHARED / "golden" / "sst_real" / "real_training_facts.json").read_text())
    return found


def stand_in(a: Tensor, b: Tensor) -> Tensor:
    """What stands for LPIPS in the vectors."""
    return (a - b).square().mean()


@pytest.mark.shared
@pytest.mark.parametrize("number", range(3))
def test_official_steps(number: int) -> None:
    about, tensors = load("real_train_step")
    step = about["steps"][number]
    ours = network("real_train_step", torch.float64).train()
    x0, low, y0, z = (tensors[key].double() for key in ("gt", "lq", "lq_up", "noise"))
    schedule = Schedule(step["total_iter"], step["s0"], step["s1"])
    grid = schedule.grid(step["current_iter"], torch.float64)
    assert len(grid) == step["num_steps"]
    index = step["index"]
    for j, key in ((index, "cur"), (index + 1, "next")):
        assert max_abs(noisy(x0, y0, z, grid[j]), tensors[f"{number}.x_{key}"]) <= 1e-6
    loss = mixed(None if step["perceptual"] is None else stand_in)
    guide, last = consistency_losses(ours, x0, y0, low, z, grid, index, loss)
    # grid points that float32 rounds, thirds, differ in the eighth digit
    assert abs(guide.item() - step["losses_f64"]["l_consistency_i"]) <= 1e-7
    assert abs(last.item() - step["losses_f64"]["l_consistency_f"]) <= 1e-7
    (guide + last).backward()
    parameters = dict(ours.named_parameters())
    wanted = {
        key.partition("grad64.")[2]: value for key, value in tensors.items() if key.startswith(f"{number}.grad64")
    }
    assert len(wanted) > 10
    for name, value in wanted.items():
        gradient = parameters[name].grad
        assert gradient is not None
        assert max_abs(gradient, value) <= 1e-6 * max(1.0, value.abs().max().item())
    total = torch.stack([p.grad.norm() for p in ours.parameters() if p.grad is not None]).norm()
    assert abs(total.item() / step["grad_norm_f64"] - 1) <= 1e-6


@pytest.mark.shared
def test_schedule() -> None:
    for text, (first, last) in (("for total 400000, s0 4, s1 3", (4, 3)), ("increasing s0 3, s1 5", (3, 5))):
        known = next(value for key, value in facts()["schedule"].items() if text in key)
        for step, points in known.items():
            assert Schedule(400_000, first, last).points(int(step)) == points
    fine = Schedule(400_000, lowest=0.01, rho=2.0).grid(1, torch.float64)
    assert max_abs(fine, torch.tensor(facts()["schedule"]["rho 2, 5 steps, 0.01..1"])) <= 1e-7


@pytest.mark.shared
def test_weight_decay() -> None:
    decay = facts()["weight_decay"]
    tiny = SSTReal(config_from_official(decay["tiny_kwargs"]))
    assert sorted(decayed(tiny)[1]) == sorted(f"model.{name}" for name in decay["tiny_no_decay"])
    with torch.device("meta"):
        whole = build_model("sst-real", 4)
    assert isinstance(whole, SSTReal)
    with_decay, without = decayed(whole)
    assert (len(with_decay), len(without)) == (1252, 368)
    parameters = dict(whole.named_parameters())
    assert sum(parameters[name].numel() for name in without) == 913_158


def test_initial_values() -> None:
    """Every layer starts as the identity, so both heads see the first features."""
    from tests.model.architectures.sst_real.test_recognise import SMALL

    torch.manual_seed(0)
    ours = SSTReal(SMALL)
    ours.initialise()
    parameters = dict(ours.named_parameters())
    assert not parameters["model.proj_body.1.adaLN_modulation.weight"].any()
    spread = torch.cat([p.flatten() for n, p in parameters.items() if n.endswith(("to_hidden", "to_q", "to_k"))])
    assert abs(spread.std().item() - 0.05) <= 0.005
    assert torch.equal(parameters["model.proj_body.0.gamma"], torch.full((1, 8, 1, 1), 1e-3))


def test_the_perceptual_stand_in() -> None:
    """Zero for equal pictures, blind to brightness, and the larger the coarser a difference is."""
    a = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert pyramid(a, a) == 0
    assert pyramid(a, a + 0.3) <= 1e-10
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert pyramid(a, a + ramp) > pyramid(a, a + 0.1 * ramp) > 0
    assert torch.isfinite(pyramid(a[..., :2, :2], a[..., 1:3, :2]))


def test_layers_of_all_blocks_take_one_dtype() -> None:
    """So that those that are alike are compiled once, and the feature maps of a bf16 step have 16 bits, after a fusion or not."""
    network = network_from_config(SMALL)
    assert {block.fuse_lr is None for block in network.modules() if isinstance(block, SSTRealBlock)} == {True, False}
    seen: set[torch.dtype] = set()

    def note(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.add(inputs[0].dtype)

    for layer in network.modules():
        if isinstance(layer, SSTRealLayer):
            layer.register_forward_pre_hook(note)
    low, high, level = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 64, 64), torch.ones(1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        result = network(high, level, low)
    assert (seen, result.dtype) == ({torch.bfloat16}, torch.float32)
    seen.clear()
    with torch.no_grad():
        network(high, level, low)
    assert seen == {torch.float32}
