from collections.abc import Sequence

import pytest

from flashrib.calibration.choose import choose
from flashrib.calibration.layers import Layer
from flashrib.calibration.quality import Quality
from flashrib.calibration.sensitivity import Cost
from flashrib.runtime.errors import ModelError

LAYERS = [Layer(f"l{i}", f"n{i}", "MatMul", f"x{i}", f"w{i}", f"y{i}", "", "", 4) for i in range(20)]
ERRORS = {layer.name: float((7 * i) % 20 + 1) for i, layer in enumerate(LAYERS)}
MACS = {layer.name: 10 for layer in LAYERS} | {"kept": 100}


def measure(layers: Sequence[Layer]) -> Quality:
    """Errors add up; a thousandth of a dB for each unit."""
    error = sum(ERRORS[layer.name] for layer in layers)
    return Quality(40 - error / 1000, error / 1000, 0.0, error)


def costs() -> dict[str, Cost]:
    return {name: Cost(error / 1000, error) for name, error in ERRORS.items()}


@pytest.mark.parametrize("budget", [0.0015, 0.02, 0.0781, 0.1, 0.3])
def test_as_many_as_fit(budget: float) -> None:
    choice = choose(LAYERS, costs(), MACS, budget, measure)
    assert measure(choice.layers).drop <= budget
    if choice.chosen < len(LAYERS):
        assert measure(choice.order[: choice.chosen + 1]).drop > budget
    assert [ERRORS[layer.name] for layer in choice.order] == sorted(ERRORS.values())


def test_the_curve() -> None:
    choice = choose(LAYERS, costs(), MACS, 0.05, measure)
    counts = [point.layers for point in choice.curve]
    assert counts == sorted(set(counts))
    assert counts[-1] == 20
    assert choice.curve[-1].share == pytest.approx(200 / 300)
    assert choice.point.quality == measure(choice.layers)
    assert len(counts) < 14  # measured where it matters, not everywhere


def test_work_counts() -> None:
    """A layer of twice the error goes first where it is more than twice the work."""
    macs = MACS | {LAYERS[1].name: 1000}
    assert choose(LAYERS, costs(), macs, 0.3, measure).order[0] == LAYERS[1]


def test_nothing_fits() -> None:
    with pytest.raises(
        ModelError, match=r"no layer can be quantized within the budget of 0.0005 dB: l0 alone, .* loses 0.001 dB"
    ):
        choose(LAYERS, costs(), MACS, 0.0005, measure)


def test_luck_does_not_count() -> None:
    """A set of layers whose measured drop is small by chance, though its errors are not, is not taken."""

    def lucky(layers: Sequence[Layer]) -> Quality:
        honest = measure(layers)
        return Quality(honest.psnr, -1.0, honest.drop, honest.error)

    assert choose(LAYERS, costs(), MACS, 0.05, lucky).chosen == choose(LAYERS, costs(), MACS, 0.05, measure).chosen
