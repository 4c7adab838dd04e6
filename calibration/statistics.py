"""What calibration tiles say about the activations that layers read: ranges, histograms and second moments."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from flashrib.calibration.formats import Floats
from flashrib.calibration.graph import Arrays, constant, run, runner, with_outputs
from flashrib.calibration.layers import Layer
from flashrib.calibration.tiles import Tile
from flashrib.runtime.errors import ModelError
from flashrib.runtime.progress import Progress

BINS = 2048  # of a histogram of absolute values
MOST_ROWS = 512  # positions of a tile that enter the second moments of a convolution

Doubles = NDArray[np.float64]


@dataclasses.dataclass
class Channels:
    """Per-channel statistics (C,) of one activation over all tiles: smallest, largest and mean value, and mean square."""

    low: Doubles
    high: Doubles
    mean: Doubles
    square: Doubles


@dataclasses.dataclass
class Moments:
    """Of the rows (K,) that a product multiplies its weight (K, out) with, one row per position.

    Attributes:
        mean: (K,).
        gram: (K, K), mean of the outer product of a row with itself, about the mean.
    """

    mean: Doubles
    gram: Doubles


def feed(tile: Tile) -> Floats:
    """The input of the network, (1, 3, H, W) in 0..1."""
    return np.ascontiguousarray(tile.low.transpose(2, 0, 1)[None] / np.float32(255), np.float32)


def channels_last(layer: Layer, values: NDArray[Any]) -> Floats:
    """The activation that a layer reads as (positions, C) float32."""
    if layer.op == "Conv":
        values = values.transpose(0, 2, 3, 1)
    return values.reshape(-1, values.shape[-1]).astype(np.float32, copy=False)


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of a model that is not quantized over calibration tiles.

    Attributes:
        model: the model.
        tiles: its inputs, one run each.
        threads: of ONNX Runtime; None: all cores.
    """

    model: ModelProto
    tiles: Sequence[Tile]
    threads: int | None = None

    def values(self, names: Sequence[str], progress: Progress) -> Iterator[tuple[Tile, Arrays]]:
        """Run all tiles, and yield each with the values of these names; `progress` is called with the tiles done and all."""
        session = runner(with_outputs(self.model, names), self.threads)
        kind = input_type(self.model)
        for done, tile in enumerate(self.tiles):
            yield tile, run(session, {"input": feed(tile).astype(kind)})
            progress(done + 1, len(self.tiles))


@dataclasses.dataclass(frozen=True)
class Activation:
    """What `collect_moments` must know about an activation.

    Attributes:
        recentred: what is done to it, as (positions, C), before it is quantized.
        end: of the histogram, the largest absolute value after that; None: no histogram is wanted.
    """

    recentred: Callable[[Floats], Floats]
    end: float | None


def collect_channels(runs: Runs, layers: Sequence[Layer], progress: Progress) -> dict[str, Channels]:
    """Run all tiles and return the statistics of every activation that `layers` read, by name.

    Raises:
        ModelError: an activation is not finite.
    """
    readers = {layer.input: layer for layer in layers}
    found: dict[str, Channels] = {}
    count: dict[str, int] = {}
    for tile, activations in runs.values(list(readers), progress):
        for name, values in activations.items():
            rows = channels_last(readers[name], values)
            if not np.isfinite(rows).all():
                raise ModelError(
                    f"the input of the layer {readers[name].name} is not finite on the tile at {tile.column},{tile.row} of"
                    f" {tile.picture}: the model overflows before any quantization; calibrate one of more range (fp32)"
                )
            new = Channels(
                rows.min(0).astype(np.float64),
                rows.max(0).astype(np.float64),
                rows.sum(0, dtype=np.float64),
                np.square(rows, dtype=np.float64).sum(0),
            )
            found[name] = new if name not in found else _added(found[name], new)
            count[name] = count.get(name, 0) + len(rows)
    for name, one in found.items():
        one.mean, one.square = one.mean / count[name], one.square / count[name]
    return found


def collect_moments(
    runs: Runs, layers: Sequence[Layer], activations: Mapping[str, Activation], progress: Progress
) -> tuple[dict[str, Moments], dict[str, NDArray[np.int64]]]:
    """Run all tiles once more and return moments per layer and histograms of absolute values per activation.

    Args:
        runs: of the model.
        layers: candidates.
        activations: all that `layers` read, by name.
        progress: called with the number of tiles done and of all.
    """
    readers = readers_of(layers)
    kernels = {layer.name: constant(runs.model, layer.weight).shape[2:] for layer in layers if layer.op == "Conv"}
    sums: dict[str, list[Any]] = {}
    histograms = {name: np.zeros(BINS, np.int64) for name in readers}
    for _, found in runs.values(list(readers), progress):
        for name, values in found.items():
            rows = activations[name].recentred(channels_last(readers[name][0], values))
            if (largest := activations[name].end) is not None:
                end = max(largest, float(np.finfo(np.float32).tiny))
                histograms[name] += np.histogram(np.abs(rows), BINS, (0.0, end))[0]
            shape = (*values.shape[2:], rows.shape[1])
            plain: tuple[int, Any, Any] | None = None  # shared by all matmuls that read this activation
            for layer in readers[name]:
                if layer.op == "Conv":
                    entry = _sums(_patches(rows.reshape(shape), kernels[layer.name]))
                else:
                    entry = plain = plain or _sums(rows)
                before = sums.get(layer.name)
                sums[layer.name] = (
                    list(entry) if before is None else [a + b for a, b in zip(before, entry, strict=True)]
                )
    moments = {}
    for name, (count, total, outer) in sums.items():
        mean = total / count
        moments[name] = Moments(mean, outer / count - np.outer(mean, mean))
    return moments, histograms


def readers_of(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """Layers by the activation that they read."""
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        readers.setdefault(layer.input, []).append(layer)
    return readers


def _added(a: Channels, b: Channels) -> Channels:
    """Of two tiles' positions together, while `mean` and `square` are still sums."""
    return Channels(np.minimum(a.low, b.low), np.maximum(a.high, b.high), a.mean + b.mean, a.square + b.square)


def _sums(rows: Floats) -> tuple[int, Any, Any]:
    return len(rows), rows.sum(0, dtype=np.float64), (rows.T @ rows).astype(np.float64)


def _patches(image: Floats, kernel: tuple[int, ...]) -> Floats:
    """Some of the patches (positions, C * rows * columns) of an image (H, W, C) with zeros around, in the order of a weight's axes."""
    rows, columns = kernel
    padded = np.pad(image, ((rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0)))
    windows = sliding_window_view(padded, kernel, (0, 1))  # (H, W, C, rows, columns)
    height, width = windows.shape[:2]
    step = max(1, -(-height * width // MOST_ROWS))
    index = np.arange(0, height * width, step | 1)  # an odd step visits all columns
    return np.ascontiguousarray(windows[index // width, index % width].reshape(len(index), -1), np.float32)


def input_type(model: ModelProto) -> Any:
    """numpy's type of the network's input."""
    return np.float16 if model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT16 else np.float32
