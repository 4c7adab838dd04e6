"""Quantization-aware finetuning: training steps see the roundings of INT8 or FP8, gradients pass straight through them.

Rounded are the weights and the inputs of the layers that `flashrib calibrate` may quantize: 1x1 convolutions and the 3x3 convolutions
between blocks, not the first and last convolution, the upsampler or depthwise convolutions. As there, activations are centred per
channel and share one scale, and weights have a scale per output channel in INT8 and a single one in FP8 (E4M3). Ranges are those of
the batch, so that a run needs no state beyond its weights. The weights that are saved are not rounded: calibration does that.

Source of the gradient: Bengio, Léonard, Courville, "Estimating or propagating gradients through stochastic neurons", 2013 (straight
through); Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flashrib.model.layers import ConvFFN, WindowAttention
from flashrib.model.network import Network

_LARGEST = {"int8": 127.0, "fp8": 448.0}


def round_through(x: Tensor, scale: Tensor, mode: str) -> Tensor:
    """`x` rounded to the grid of `mode` times `scale`; the gradient is that of `x` itself."""
    with torch.no_grad():
        grid = (x.float() / scale).clamp(-_LARGEST[mode], _LARGEST[mode])
        grid = grid.round() if mode == "int8" else grid.to(torch.float8_e4m3fn).float()
        rounded = (grid * scale).to(x.dtype)
    return x + (rounded - x).detach()


def rounded_weight(weight: Tensor, mode: str) -> Tensor:
    """A weight (out, in, h, w) with a scale per output channel (int8) or one scale (fp8)."""
    largest = weight.detach().abs()
    largest = largest.amax((1, 2, 3), keepdim=True) if mode == "int8" else largest.amax()
    return round_through(weight, _scale(largest, mode), mode)


def rounded_activation(x: Tensor, mode: str) -> Tensor:
    """An activation (B, C, H, W), centred per channel, with one scale.

    The centre is the middle of the channel's range in INT8, its mean in FP8.
    """
    with torch.no_grad():
        values = x.detach().float()
        low, high = values.amin((0, 2, 3), keepdim=True), values.amax((0, 2, 3), keepdim=True)
        centre = (low + high) / 2 if mode == "int8" else values.mean((0, 2, 3), keepdim=True)
        scale = _scale(torch.maximum(high - centre, centre - low).amax(), mode)
        centre = centre.to(x.dtype)
    return round_through(x - centre, scale, mode) + centre


def _quantizable(network: Network) -> list[str]:
    """Names of the convolutions that calibration may quantize."""
    kept = network.unquantized()
    prefixes = tuple(f"{name}." for name in kept)
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == 1 and name not in kept and not name.startswith(prefixes)
    ]


def _scale(largest: Tensor, mode: str) -> Tensor:
    return torch.where(largest > 0, largest.float(), 1.0) / _LARGEST[mode]


class QuantizationAware:
    """A network as it computes once it is quantized; its parameters stay what they are, under their own names."""

    def __init__(self, network: Network, mode: str) -> None:
        self.network, self.mode = network, mode
        self.weights = [f"{name}.weight" for name in _quantizable(network)]
        for name, module in network.named_modules():
            if isinstance(module, WindowAttention | ConvFFN):
                module.plainly = True
            # The attention computes with the weight of its qkv convolution and never calls it: its own input is that one's.
            called = f"{name}.weight" in self.weights and not name.endswith("to_qkv")
            if called or isinstance(module, WindowAttention):
                module.register_forward_pre_hook(self._round_input)

    def _round_input(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (rounded_activation(inputs[0], self.mode), *inputs[1:])

    def __call__(self, x: Tensor) -> Tensor:
        """As the network's `forward`, with rounded weights and activations."""
        parameters = dict(self.network.named_parameters())
        rounded = {name: rounded_weight(parameters[name], self.mode) for name in self.weights}
        return functional_call(self.network, rounded, (x,))

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Within the context the network has the rounded weights, for its `upscale`."""
        parameters = dict(self.network.named_parameters())
        kept = {name: parameters[name].detach().clone() for name in self.weights}
        with torch.no_grad():
            for name in self.weights:
                parameters[name].copy_(rounded_weight(parameters[name], self.mode))
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in kept.items():
                    parameters[name].copy_(value)
