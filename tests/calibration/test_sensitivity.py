from pathlib import Path

import numpy as np
import pytest

from flashrib.calibration.apply import with_layers
from flashrib.calibration.cuts import MOST_CARRIED, pieces
from flashrib.calibration.formats import FORMATS, Format
from flashrib.calibration.graph import part, run, runner
from flashrib.calibration.plan import LayerPlan
from flashrib.calibration.quality import Judge
from flashrib.calibration.sensitivity import Cost, Quantized, layer_costs
from flashrib.calibration.statistics import feed
from flashrib.model.config import NetworkConfig
from tests.calibration.cases import candidates, plans, small_model, tiles
from tests.model.networks import SMALL, SMALL_ESC


class Kept:
    """See `flashrib.calibration.sensitivity.Kept`."""

    def __init__(self, costs: dict[str, Cost]) -> None:
        self.costs = costs
        self.found: list[str] = []

    def add(self, name: str, cost: Cost) -> None:
        self.found.append(name)


def quantized(made: dict[str, LayerPlan], kind: Format) -> Quantized:
    return lambda of, chosen: with_layers(of, [made[layer.name] for layer in chosen], kind)


BOTH = pytest.mark.parametrize("config", [SMALL, SMALL_ESC], ids=["sst", "esc"])


@BOTH
def test_the_pieces_are_the_network(config: NetworkConfig, tmp_path: Path) -> None:
    model = small_model(config)
    layers = candidates(model)
    cut = pieces(model, layers)
    assert len(cut) > 2
    assert [layer for piece in cut for layer in piece.layers] == layers
    assert max(len(piece.start) for piece in cut) <= MOST_CARRIED
    x = feed(tiles(tmp_path / "p").held_out[0])
    values = {"input": x}
    for piece in cut:
        values |= run(runner(part(model, piece.start, [n for n in piece.end if n not in piece.start]), 1), values)
    expected = run(runner(model, 1), {"input": x})["output"]
    assert np.abs(values["output"] - expected).max() <= 1e-5


@BOTH
def test_costs_are_those_of_the_whole_network(config: NetworkConfig, tmp_path: Path) -> None:
    """What is measured piece by piece is what the network with this one layer quantized shows."""
    model, drawn = small_model(config), tiles(tmp_path / "p")
    layers, kind = candidates(model), FORMATS["int8"]
    made = plans(model, drawn, "int8")
    judge = Judge(model, drawn.held_out, 2, 1)
    costs = layer_costs(model, layers, quantized(made, kind), judge, 3)
    for layer in layers[::4]:
        quality = judge.judge_model(with_layers(model, [made[layer.name]], kind))
        assert costs[layer.name].error == pytest.approx(quality.error, rel=0.02)
        assert costs[layer.name].drop == pytest.approx(quality.drop, abs=1e-4)
    assert all(cost.error > 0 for cost in costs.values())


def test_known_costs_are_not_measured_again(tmp_path: Path) -> None:
    model, drawn = small_model(), tiles(tmp_path / "p")
    layers = candidates(model)
    made = plans(model, drawn, "int8")
    judge = Judge(model, drawn.held_out, 2, 1)
    known = {layer.name: Cost(1.0, 2.0) for layer in layers[:7]}
    kept = Kept(known)
    counts: list[tuple[int, int]] = []
    costs = layer_costs(
        model,
        layers,
        quantized(made, FORMATS["int8"]),
        judge,
        2,
        kept,
        progress=lambda done, total: counts.append((done, total)),
    )
    assert kept.found == [layer.name for layer in layers[7:]]
    assert costs[layers[0].name] == Cost(1.0, 2.0)
    assert counts == [(8 + i, 11) for i in range(4)]
    fresh = layer_costs(model, layers, quantized(made, FORMATS["int8"]), judge, 2)
    assert all(fresh[name] == costs[name] for name in kept.found)
