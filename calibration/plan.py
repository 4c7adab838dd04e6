"""How each layer is quantized: centred and smoothed activations, scales, rounded weights, corrected biases.

Before it is rounded, an activation x becomes (x - offset) * factor per channel; the weight takes 1 / factor and the bias takes
offset @ weight, so that the product stays what it was. The two are folded into a LayerNorm where it stands directly in front and
nothing else reads it, and are a multiplication and an addition otherwise.

    offset   INT8: the middle of the channel's range, which makes that range as small as it can be. FP8: the channel's mean, because
             the error of a floating-point value is a share of its distance from zero. Source of the idea: Wei et al., "Outlier
             suppression+", 2023. A convolution pads with zeros, which would have to be padded with -offset: so in INT8 it has none,
             and in FP8, where it pays, the padding becomes a node of its own in front.
    factor   INT8: reach^-a * |weight|^(1-a) per channel, for the a of `STRENGTHS` that promises the least error of the product
             (Xiao et al., "SmoothQuant", 2023, equation 4). FP8: none, its relative precision is the same at every size.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from flashrib.calibration.formats import FORMATS, Floats, Format
from flashrib.calibration.graph import constant
from flashrib.calibration.layers import Layer
from flashrib.calibration.ranges import clip_at
from flashrib.calibration.rounding import round_weight
from flashrib.calibration.statistics import (
    Activation,
    Channels,
    Doubles,
    Moments,
    Runs,
    collect_channels,
    collect_moments,
    readers_of,
)
from flashrib.runtime.errors import ModelError
from flashrib.runtime.progress import Progress

STRENGTHS = (None, 0.5, 0.75, 1.0)  # None: no smoothing


@dataclasses.dataclass(frozen=True)
class Recentring:
    """What is done to an activation before it is rounded: (x - offset) * factor, both (C,); None: nothing."""

    offset: Doubles | None
    factor: Doubles | None

    def __call__(self, rows: Floats) -> Floats:
        """Apply to (positions, C)."""
        if self.offset is not None:
            rows = rows - self.offset.astype(np.float32)
        return rows if self.factor is None else rows * self.factor.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """How one layer is quantized.

    Attributes:
        layer: which one.
        recentring: of its activation, the same for all layers that read it.
        scale: of the activation after that.
        weight: what is stored, in the shape of the original: values of the grid times their scales.
        weight_scale: one per output channel, or a single one.
        correction: (out,), added to the bias; None where the layer has no bias.
    """

    layer: Layer
    recentring: Recentring
    scale: float
    weight: Doubles
    weight_scale: NDArray[np.float32]
    correction: Doubles | None


def plan_layers(
    runs: Runs,
    layers: Sequence[Layer],
    mode: str,
    method: str = "minmax",
    progress: Progress = lambda done, total: None,
) -> dict[str, LayerPlan]:
    """Plan every candidate, from two runs over the calibration tiles; by the layer's name.

    Raises:
        ModelError: an activation or a weight is not finite.
    """
    kind = FORMATS[mode]
    weights = {layer.name: constant(runs.model, layer.weight).astype(np.float64) for layer in layers}
    for name, weight in weights.items():
        if not np.isfinite(weight).all():
            raise ModelError(f"the weight of the layer {name} is not finite: the model is damaged")
    half = len(runs.tiles)
    channels = collect_channels(runs, layers, lambda done, _: progress(done, 2 * half))
    recentred = {
        name: _recentring(channels[name], [(layer, weights[layer.name]) for layer in group], kind)
        for name, group in readers_of(layers).items()
    }
    reach = {name: float(_reach(channels[name], recentring).max()) for name, recentring in recentred.items()}
    activations = {
        name: Activation(recentring, None if method == "minmax" else reach[name])
        for name, recentring in recentred.items()
    }
    moments, histograms = collect_moments(runs, layers, activations, lambda done, _: progress(half + done, 2 * half))
    scales = {name: float(kind.scale_of(clip_at(histograms[name], reach[name], method, kind))) for name in recentred}
    return {
        layer.name: _planned(
            runs.model,
            layer,
            weights[layer.name],
            recentred[layer.input],
            scales[layer.input],
            moments[layer.name],
            kind,
        )
        for layer in layers
    }


def _planned(
    model: ModelProto,
    layer: Layer,
    weight: Doubles,
    recentring: Recentring,
    scale: float,
    seen: Moments,
    kind: Format,
) -> LayerPlan:
    """Round the weight of a layer whose activation is planned, and correct its bias."""
    smoothed = _times(weight, layer, recentring.factor, inverse=True)
    stored = constant(model, layer.weight).dtype
    weight_scale = kind.weight_scale(smoothed, layer.axis).astype(stored)
    weight_scale = np.maximum(weight_scale, np.finfo(stored).smallest_subnormal).astype(np.float32)  # fp16 ends early
    flat = _flat(smoothed, layer)
    rounded = round_weight(flat, seen.gram, weight_scale, kind)
    correction = None
    if _has_bias(model, layer):
        correction = seen.mean @ (flat - rounded)
        if recentring.offset is not None:
            correction = correction + recentring.offset @ (weight.sum((2, 3)).T if layer.op == "Conv" else weight)
    shaped = rounded.T.reshape(weight.shape) if layer.op == "Conv" else rounded
    return LayerPlan(layer, recentring, scale, shaped, weight_scale, correction)


def plain_plans(runs: Runs, layers: Sequence[Layer], mode: str) -> dict[str, LayerPlan]:
    """Plan layers as naive quantization does: the largest values as ranges, weights rounded to the nearest, nothing else."""
    kind = FORMATS[mode]
    channels = collect_channels(runs, layers, lambda done, total: None)
    plans = {}
    for layer in layers:
        weight = constant(runs.model, layer.weight)
        seen = channels[layer.input]
        scale = kind.weight_scale(weight, layer.axis)
        shape = [-1 if axis == layer.axis else 1 for axis in range(weight.ndim)]
        rounded = kind.rounded(weight, scale.reshape(shape) if kind.per_channel else scale).astype(np.float64)
        reach = max(float(np.abs(seen.low).max()), float(np.abs(seen.high).max()))
        plans[layer.name] = LayerPlan(layer, Recentring(None, None), float(kind.scale_of(reach)), rounded, scale, None)
    return plans


def _recentring(channels: Channels, readers: list[tuple[Layer, Doubles]], kind: Format) -> Recentring:
    convolution = any(layer.op == "Conv" for layer, _ in readers)
    without_bias = any(not layer.add for layer, _ in readers if layer.op == "MatMul")
    offset = None
    if kind.name == "fp8" and not without_bias and not (convolution and _large(readers)):
        offset = channels.mean
    elif kind.name == "int8" and not convolution and not without_bias:
        offset = (channels.low + channels.high) / 2
    if kind.name == "fp8":
        return Recentring(offset, None)
    weights = np.concatenate([_flat(weight, layer).reshape(len(channels.low), -1) for layer, weight in readers], axis=1)
    reach = _reach(channels, Recentring(offset, None))
    about = offset if offset is not None else np.zeros_like(channels.mean)
    power = channels.square - 2 * about * channels.mean + about**2
    choices = [_factor(reach, weights, strength) for strength in STRENGTHS]
    errors = [_error(reach, power, weights, factor, kind) for factor in choices]
    return Recentring(offset, choices[int(np.argmin(errors))])


def _large(readers: list[tuple[Layer, Doubles]]) -> bool:
    """ESC's large kernel: padding as a node of its own would cost more there than centring gains."""
    return any(weight.ndim == 4 and max(weight.shape[2:]) > 3 for _, weight in readers)


def _reach(channels: Channels, recentring: Recentring) -> Doubles:
    """Largest absolute value per channel after recentring."""
    offset = recentring.offset if recentring.offset is not None else 0.0
    reach = np.maximum(np.abs(channels.low - offset), np.abs(channels.high - offset))
    return reach if recentring.factor is None else reach * recentring.factor


def _factor(reach: Doubles, weights: Doubles, strength: float | None) -> Doubles | None:
    """Factor per channel, of geometric mean 1; channels that are empty on either side stay as they are."""
    if strength is None:
        return None
    largest = np.abs(weights).max(1)
    usable = (reach > 0) & (largest > 0)
    factor = np.ones_like(reach)
    factor[usable] = reach[usable] ** -strength * largest[usable] ** (1 - strength)
    if usable.any():
        factor[usable] /= np.exp(np.log(factor[usable]).mean())
    return factor


def _error(reach: Doubles, power: Doubles, weights: Doubles, factor: Doubles | None, kind: Format) -> float:
    """Mean square error of the product to expect: both roundings are uniform, a twelfth of their step squared."""
    factor = np.ones_like(reach) if factor is None else factor
    weights = weights.reshape(len(reach), -1) / factor[:, None]
    step = float((reach * factor).max()) / kind.largest
    steps = np.abs(weights).max(0) / kind.largest  # per output channel, or nearly so for the places of a kernel
    activation = step**2 / 12 * float(np.square(weights).sum())
    weight = float((power * factor**2).sum()) * float(np.square(steps).sum()) / 12
    return activation + weight


def _flat(weight: Doubles, layer: Layer) -> Doubles:
    """Weight as (K, out): inputs first."""
    return weight.reshape(weight.shape[0], -1).T if layer.op == "Conv" else weight


def _times(weight: Doubles, layer: Layer, factor: Doubles | None, inverse: bool) -> Doubles:
    if factor is None:
        return weight
    factor = 1 / factor if inverse else factor
    return weight * (factor[None, :, None, None] if layer.op == "Conv" else factor[:, None])


def _has_bias(model: ModelProto, layer: Layer) -> bool:
    node = next(node for node in model.graph.node if node.name == layer.node)
    return bool(layer.add) or (layer.op == "Conv" and len(node.input) > 2)
