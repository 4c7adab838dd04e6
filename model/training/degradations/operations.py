"""Degradations with given parameters, on pictures (B, 3, H, W), RGB in 0..1."""

import torch
import torch.nn.functional as F
from torch import Tensor

GRAY = (0.2989, 0.587, 0.114)
RESIZE_MODES = ("area", "bilinear", "bicubic")


def blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Correlate each picture with its kernel (B, k, k), k odd; beyond the edge by reflection without repeating it."""
    batch, channels, height, width = x.shape
    side = kernels.shape[-1]
    x = F.pad(x, (side // 2,) * 4, mode="reflect")
    weight = kernels.to(x)[:, None].repeat_interleave(channels, dim=0)  # (B*C, 1, k, k)
    y = F.conv2d(x.reshape(1, batch * channels, *x.shape[2:]), weight, groups=batch * channels)
    return y.view(batch, channels, height, width)


def resize(x: Tensor, mode: str, size: tuple[int, int] | None = None, scale: float | None = None) -> Tensor:
    """PyTorch's interpolation without antialiasing, `mode` one of `RESIZE_MODES`; not clamped."""
    corners = None if mode == "area" else False
    return F.interpolate(x, size=size, scale_factor=scale, mode=mode, align_corners=corners)


def gray_of(x: Tensor) -> Tensor:
    """(B, 1, H, W)."""
    return GRAY[0] * x[:, :1] + GRAY[1] * x[:, 1:2] + GRAY[2] * x[:, 2:]


def gaussian_noise(x: Tensor, sigma: Tensor, gray: Tensor, z: Tensor, z_gray: Tensor) -> Tensor:
    """Add normal noise and clamp.

    Args:
        x: pictures.
        sigma: standard deviation of each picture's noise, of 255, (B,).
        gray: 1 where a picture gets the same noise in all channels, (B,), else 0.
        z: standard normal, of the shape of `x`.
        z_gray: standard normal (H, W), one map for the whole batch.
    """
    gray = gray[:, None, None, None]
    noise = z * (1 - gray) + z_gray * gray
    return (x + noise * sigma[:, None, None, None] / 255).clamp(0, 1)


def rates(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of Poisson noise: pictures rounded to 8 bits, their number of levels V (B, 1, 1, 1), and the rates, the product of both.

    V is the power of two from the number of values that a picture has on. Nothing here waits for the device.
    """
    x = (x * 255).round().clamp(0, 255)
    present = x.new_zeros(len(x), 256).scatter_(1, x.flatten(1).long(), 1.0)
    levels = (present.sum(1).log2() - 1e-4).ceil().exp2().round()[:, None, None, None]
    x = x / 255
    return x, levels, x * levels


def poisson_noise(
    x: Tensor, scale: Tensor, gray: Tensor, counts: Tensor | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Add Poisson noise and clamp.

    Args:
        x: pictures.
        scale: factor of each picture's noise, (B,).
        gray: 1 where a picture gets the noise of its gray picture in all channels, (B,), else 0.
        counts: what stands for Poisson numbers of the `rates` of gray (B, 1, H, W) and colour (B, 3, H, W), side by side in the channels;
            None draws them.
        generator: draws.
    """
    gray_x, gray_levels, gray_rates = rates(gray_of(x))
    colour_x, colour_levels, colour_rates = rates(x)
    if counts is None:
        counts = torch.poisson(torch.cat([gray_rates, colour_rates], dim=1), generator=generator)
    of_gray = counts[:, :1] / gray_levels - gray_x
    of_colour = counts[:, 1:] / colour_levels - colour_x
    gray = gray[:, None, None, None]
    noise = (of_colour * (1 - gray) + of_gray * gray) * scale[:, None, None, None]
    return (x + noise).clamp(0, 1)


def to_8_bits(x: Tensor) -> Tensor:
    """Round to what a file of 8 bits holds."""
    return (x * 255).round().clamp(0, 255) / 255
