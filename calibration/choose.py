"""Which layers are quantized: as much work as fits the budget."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from flashrib.calibration.layers import Layer
from flashrib.calibration.quality import Quality
from flashrib.calibration.sensitivity import Cost
from flashrib.runtime.errors import ModelError
from flashrib.runtime.progress import Progress

POINTS = 8  # of the curve, besides those that the search for the budget adds


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of the curve: the first `layers` of the order quantized, their share of all MACs outside of attention, and the quality."""

    layers: int
    share: float
    quality: Quality


@dataclasses.dataclass(frozen=True)
class Choice:
    """`order` of all candidates, cheapest work first; the first `chosen` are quantized; `curve` by rising share."""

    order: tuple[Layer, ...]
    chosen: int
    curve: tuple[Point, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.order[: self.chosen]

    @property
    def point(self) -> Point:
        """The one that was chosen."""
        return next(point for point in self.curve if point.layers == self.chosen)


def choose(
    candidates: Sequence[Layer],
    costs: Mapping[str, Cost],
    macs: Mapping[str, int],
    budget: float,
    measure: Callable[[Sequence[Layer]], Quality],
    progress: Progress = lambda done, total: None,
) -> Choice:
    """Order the layers by error per MAC, and take the longest beginning of that order whose loss, measured, is within the budget.

    The errors of layers are nearly independent, so that their squares add up: greedy by the ratio is then nearly the best choice.
    What the layers do together is measured, not added: at `POINTS` places of the order and by bisection.

    Args:
        candidates: layers that may be quantized.
        costs: of each alone, by name.
        macs: of all products outside of attention, by name.
        budget: largest loss of PSNR in dB; see `Quality.loss`.
        measure: quality with these layers quantized.
        progress: called with the number of measurements done and of all, at most.

    Raises:
        ModelError: not even the cheapest layer fits the budget.
    """
    total = sum(macs.values())
    order = sorted(candidates, key=lambda layer: (costs[layer.name].error / macs[layer.name], layer.name))
    points: dict[int, Point] = {}
    expected = POINTS + len(order).bit_length()

    def at(count: int) -> Point:
        if count not in points:
            share = sum(macs[layer.name] for layer in order[:count]) / total
            points[count] = Point(count, share, measure(order[:count]))
            progress(len(points), max(expected, len(points)))
        return points[count]

    places = sorted({max(1, round(len(order) * i / POINTS)) for i in range(1, POINTS + 1)})
    fits = [count for count in places if at(count).quality.loss <= budget]
    low = max(fits, default=0)
    high = next((count for count in places if count > low), len(order) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if at(middle).quality.loss <= budget:
            low = middle
        else:
            high = middle
    if low == 0:
        cheapest = order[0]
        raise ModelError(
            f"no layer can be quantized within the budget of {budget:g} dB: {cheapest.name} alone, the cheapest, loses"
            f" {points[1].quality.loss:.3g} dB; raise --budget"
        )
    return Choice(tuple(order), low, tuple(points[count] for count in sorted(points)))


def work(layers: Sequence[Layer], outputs: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """MACs of every product for one tile, by name; `outputs` are the shapes of products and of factors that are no constants."""
    macs = {}
    for layer in layers:
        size = 1
        for side in outputs[layer.output]:
            size *= side
        depth = layer.depth
        if not depth:
            factor = outputs[layer.weight]
            depth = factor[1] * factor[2] * factor[3] if layer.op == "Conv" else factor[-2]
        macs[layer.name] = size * depth
    return macs
