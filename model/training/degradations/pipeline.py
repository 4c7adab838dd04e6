"""The second-order degradation of photographs: draws of its parameters, and the order of its steps.

    blur, resize, noise, JPEG;  with probability 1/2 once more blur, resize, noise;
    then in one order or the other: resize to the final size with a last filter, JPEG

Choices such as the direction of a resize hold for a whole batch, sizes and strengths are drawn for each picture. A seed decides all of
it: the same seed, batch and device give the same result.
"""

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from flashrib.model.training.degradations import kernels
from flashrib.model.training.degradations.jpeg import jpeg
from flashrib.model.training.degradations.operations import (
    RESIZE_MODES,
    blur,
    gaussian_noise,
    poisson_noise,
    resize,
    to_8_bits,
)
from flashrib.runtime.errors import UsageError

Range = tuple[float, float]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Order:
    """Parameters of one round: blur, resize and noise.

    Attributes:
        blur: probability of a blur.
        largest_kernel: its largest side, the smallest being 3, odd; kernels are completed to two more than it.
        sigma: standard deviations of a blur, in pixels.
        resize: probabilities of enlarging, shrinking and keeping the size.
        scale: smallest and largest factor of the resize, 1 in between.
        noise: standard deviations of Gaussian noise, of 255.
        poisson: factors of Poisson noise.
    """

    blur: float
    largest_kernel: int
    sigma: Range
    resize: tuple[float, float, float]
    scale: Range
    noise: Range
    poisson: Range


@dataclasses.dataclass(frozen=True)
class SecondOrder:
    """Parameters of the whole; the defaults are those of SST-Real's training.

    Attributes:
        scale: how much smaller the result is.
        first, second: the two rounds.
        twice: probability of the second round.
        sinc: probability that a blur is a low-pass filter that rings; of the last filter, `last_sinc`.
        last_sinc: see `sinc`.
        kinds: weights of the other blurs: Gaussian, generalized and plateau, each with one and with two standard deviations.
        gaussian: probability that noise is Gaussian and not Poisson.
        gray: probability that a picture's noise is gray.
        quality: JPEG qualities.
    """

    scale: int = 4
    first: Order = Order(1.0, 19, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0))
    second: Order = Order(0.8, 13, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))
    twice: float = 0.5
    sinc: float = 0.1
    last_sinc: float = 0.8
    kinds: tuple[float, float, float, float, float, float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    gaussian: float = 0.5
    gray: float = 0.4
    quality: Range = (30, 95)


PHOTO = SecondOrder(
    first=Order(0.9, 15, (0.2, 1.8), (0.2, 0.5, 0.3), (0.4, 1.3), (1, 20), (0.05, 2.0)),
    second=Order(0.5, 9, (0.2, 1.0), (0.2, 0.3, 0.5), (0.6, 1.2), (1, 10), (0.05, 1.0)),
    twice=0.3,
    last_sinc=0.5,
    quality=(40, 95),
)
"""Photographs as cameras, phones and web sites leave them: the same steps, about half as strong as SST-Real's."""

DEGRADATIONS = {"sst-real": SecondOrder(), "photo": PHOTO}
"""The settings that have a name in training configurations; `scale` is the network's."""

_LAST_KERNEL = 13  # largest side of the last filter


class Degradation:
    """Good pictures -> bad small ones, seeded; see the module.

    Args:
        options: the parameters.
    """

    def __init__(self, options: SecondOrder | None = None) -> None:
        self.options = options or SecondOrder()

    def __call__(self, high: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Degrade a batch.

        Args:
            high: (B, 3, H, W), RGB in 0..1, sides multiples of the scale.
            seed: of everything that is drawn.

        Returns:
            The low-resolution pictures (B, 3, H / scale, W / scale), rounded to 8 bits, and the same enlarged again bicubically to
            (B, 3, H, W) before that rounding, rounded to 8 bits itself.

        Raises:
            UsageError: sides that are no multiples of the scale, or too small for the largest kernels.
        """
        options = self.options
        height, width = high.shape[-2:]
        least = options.scale * (_LAST_KERNEL + 3)
        if height % options.scale or width % options.scale or min(height, width) < least:
            raise UsageError(
                f"pictures of {height}x{width} cannot be degraded: sides must be multiples of {options.scale}, at least {least}"
            )
        draws = _Draws(seed, high)
        x = self._round(high, options.first, draws, (height, width))
        x = jpeg(x.clamp(0, 1), draws.each(*options.quality))
        small = height // options.scale, width // options.scale
        if draws.chance(options.twice):
            x = self._round(x, options.second, draws, small)
        last = draws.kernels(lambda: self._last_kernel(draws))
        mode = draws.choice(RESIZE_MODES)
        quality = draws.each(*options.quality)
        if draws.chance(0.5):
            x = jpeg(blur(resize(x, mode, small), last).clamp(0, 1), quality)
        else:
            x = blur(resize(jpeg(x.clamp(0, 1), quality), mode, small), last)
        return to_8_bits(x), to_8_bits(resize(x, "bicubic", (height, width)))

    def _round(self, x: Tensor, order: Order, draws: "_Draws", size: tuple[int, int]) -> Tensor:
        if draws.chance(order.blur):
            x = blur(x, draws.kernels(lambda: self._kernel(order, draws)))
        direction = draws.weighted(("up", "down", "keep"), order.resize)
        low, high = {"up": (1.0, order.scale[1]), "down": (order.scale[0], 1.0), "keep": (1.0, 1.0)}[direction]
        factor = draws.uniform(low, high)
        x = resize(x, draws.choice(RESIZE_MODES), (int(size[0] * factor), int(size[1] * factor)))
        gray = draws.each_chance(self.options.gray)
        if draws.chance(self.options.gaussian):
            z, z_gray = draws.normal(x.shape), draws.normal(x.shape[2:])
            return gaussian_noise(x, draws.each(*order.noise), gray, z, z_gray)
        return poisson_noise(x, draws.each(*order.poisson), gray, generator=draws.generator)

    def _kernel(self, order: Order, draws: "_Draws") -> Tensor:
        size = draws.odd(3, order.largest_kernel)
        side = order.largest_kernel + 2
        if draws.chance(self.options.sinc):
            return kernels.sinc(size, draws.uniform(math.pi / (3 if size < 13 else 5), math.pi), side)
        kind = draws.weighted(range(6), self.options.kinds)
        sigma_x, sigma_y, theta = draws.uniform(*order.sigma), None, 0.0
        if kind % 2:
            sigma_y, theta = draws.uniform(*order.sigma), draws.uniform(-math.pi, math.pi)
        if kind < 2:
            return kernels.padded(kernels.gaussian(size, sigma_x, sigma_y, theta), side)
        below = draws.chance(0.5)
        if kind < 4:
            beta = draws.uniform(0.5, 1.0) if below else draws.uniform(1.0, 4.0)
            return kernels.padded(kernels.gaussian(size, sigma_x, sigma_y, theta, beta), side)
        beta = 1.0 if below else draws.uniform(1.0, 2.0)
        return kernels.padded(kernels.plateau(size, sigma_x, sigma_y, theta, beta), side)

    def _last_kernel(self, draws: "_Draws") -> Tensor:
        side = _LAST_KERNEL + 2
        if not draws.chance(self.options.last_sinc):
            return kernels.identity(side)
        return kernels.sinc(draws.odd(3, _LAST_KERNEL), draws.uniform(math.pi / 3, math.pi), side)


class _Draws:
    """Everything random of one batch: choices on the CPU, what fills pictures on their device."""

    def __init__(self, seed: int, like: Tensor) -> None:
        self._like = like
        self._random = random.Random(seed)
        self.generator = torch.Generator(like.device).manual_seed(seed % 2**63)

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def odd(self, low: int, high: int) -> int:
        return self._random.randrange(low, high + 1, 2)

    def choice(self, options: Sequence[T]) -> T:
        return self._random.choice(options)

    def weighted(self, options: Sequence[T], weights: Sequence[float]) -> T:
        return self._random.choices(options, weights)[0]

    def each(self, low: float, high: float) -> Tensor:
        """A uniform number for each picture."""
        return self._sent(torch.tensor([self._random.uniform(low, high) for _ in range(len(self._like))]))

    def each_chance(self, probability: float) -> Tensor:
        """1 with a probability, else 0, for each picture."""
        return self._sent(torch.tensor([float(self.chance(probability)) for _ in range(len(self._like))]))

    def kernels(self, make: Callable[[], Tensor]) -> Tensor:
        """A kernel for each picture."""
        return self._sent(torch.stack([make() for _ in range(len(self._like))]))

    def _sent(self, values: Tensor) -> Tensor:
        """On the pictures' device and in their type, without waiting for what the device still does."""
        values = values.to(self._like.dtype)
        if self._like.is_cuda:
            return values.pin_memory().to(self._like.device, non_blocking=True)
        return values.to(self._like.device)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator, device=self._like.device, dtype=self._like.dtype)
