"""What each layer costs when it alone is quantized."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from onnx import ModelProto

from flashrib.calibration.cuts import Piece, pieces
from flashrib.calibration.graph import Arrays, part, run, runner
from flashrib.calibration.layers import Layer
from flashrib.calibration.quality import Judge
from flashrib.runtime.progress import Progress

Quantized = Callable[[ModelProto, Sequence[Layer]], ModelProto]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one layer: drop of PSNR on the tiles in dB, and mean square error of the output's luma (0..255)."""

    drop: float
    error: float


class Kept(Protocol):
    """Where costs are kept as they are found."""

    @property
    def costs(self) -> Mapping[str, Cost]:
        """Of an earlier run, by the layer's name; these are not measured again."""

    def add(self, name: str, cost: Cost) -> None:
        """Keep one more."""


def layer_costs(
    model: ModelProto,
    layers: Sequence[Layer],
    quantized: Quantized,
    judge: Judge,
    tiles: int,
    kept: Kept | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Cost]:
    """Quantize one layer after the other, alone, and measure the output.

    Args:
        model: not quantized.
        layers: candidates, in order.
        quantized: a model, or a part of one, and layers -> the same with these layers in 8 bits.
        judge: with the held-out tiles, of which the first `tiles` are used.
        tiles: see above.
        kept: costs that are known, and where new ones go; None: nowhere.
        progress: called with the number of layers done and of all.
    """
    costs = dict(kept.costs) if kept is not None else {}
    cut = pieces(model, list(layers))
    at: list[Arrays] = [{"input": judge.feeds[index]} for index in range(tiles)]
    output = model.graph.output[0].name
    for index, piece in enumerate(cut):
        wanted = [layer for layer in piece.layers if layer.name not in costs]
        body = part(model, piece.start, [name for name in piece.end if name not in piece.start])
        last = index + 1 == len(cut)
        rest = runner(part(model, piece.end, [output]), judge.threads) if wanted and not last else None
        for layer in wanted:
            session = runner(quantized(body, [layer]), judge.threads)
            outputs: dict[int, NDArray[Any]] = {}
            for tile, values in enumerate(at):
                values = values | run(session, values)
                outputs[tile] = (values if rest is None else run(rest, values))[output]
            quality = judge.judge(outputs)
            costs[layer.name] = Cost(quality.drop, quality.error)
            if kept is not None:
                kept.add(layer.name, costs[layer.name])
            progress(len(costs), len(layers))
        if not last and any(layer.name not in costs for later in cut[index + 1 :] for layer in later.layers):
            at = _advance(body, piece, at, judge.threads)
    return costs


def _advance(body: ModelProto, piece: Piece, at: list[Arrays], threads: int | None) -> list[Arrays]:
    """Values of every tile at the end of a piece."""
    session = runner(body, threads)
    carried = []
    for values in at:
        values = values | run(session, values)
        carried.append({"input": values["input"]} | {name: values[name] for name in piece.end})
    return carried
