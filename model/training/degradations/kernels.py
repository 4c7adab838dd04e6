"""Blur kernels, float64 on the CPU, normalised to sum 1: (size, size), size odd."""

import math

import torch
from torch import Tensor


def _squared_distance(size: int, sigma_x: float, sigma_y: float, theta: float) -> Tensor:
    """q = [x y] S^-1 [x y]^T of every cell, S = U diag(sigma_x^2, sigma_y^2) U^T, U the rotation by theta."""
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    x, y = axis[None, :], axis[:, None]
    cos, sin = math.cos(theta), math.sin(theta)
    along, across = cos * x + sin * y, -sin * x + cos * y
    return (along / sigma_x) ** 2 + (across / sigma_y) ** 2


def _normalised(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum()


def gaussian(size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0, beta: float = 1.0) -> Tensor:
    """Gaussian kernel exp(-q^beta / 2).

    Args:
        size: side.
        sigma_x: standard deviation along the first axis, in pixels.
        sigma_y: along the second axis; None: the same, whatever `theta`.
        theta: rotation in radians.
        beta: shape, 1 being the Gaussian; above it flatter, below more peaked.
    """
    q = _squared_distance(size, sigma_x, sigma_x if sigma_y is None else sigma_y, theta)
    return _normalised(torch.exp(-0.5 * q**beta))


def plateau(size: int, sigma_x: float, sigma_y: float | None = None, theta: float = 0.0, beta: float = 1.0) -> Tensor:
    """Kernel 1 / (1 + q^beta); arguments as of `gaussian`."""
    q = _squared_distance(size, sigma_x, sigma_x if sigma_y is None else sigma_y, theta)
    return _normalised(1 / (1 + q**beta))


def sinc(size: int, cutoff: float, pad_to: int = 0) -> Tensor:
    """Circular low-pass filter w J1(w r) / (2 pi r), which rings.

    Args:
        size: side.
        cutoff: frequency w in radians per pixel, up to pi.
        pad_to: side of the result, completed by zeros; 0: `size`.
    """
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    r = (axis[None, :] ** 2 + axis[:, None] ** 2).sqrt()
    centre = size // 2
    r[centre, centre] = 1
    kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r)
    kernel[centre, centre] = cutoff**2 / (4 * math.pi)
    return padded(_normalised(kernel), pad_to)


def padded(kernel: Tensor, side: int) -> Tensor:
    """`kernel` in the middle of a larger one of zeros."""
    missing = max(side - kernel.shape[0], 0) // 2
    return torch.nn.functional.pad(kernel, (missing,) * 4)


def identity(side: int) -> Tensor:
    """A kernel that changes nothing."""
    return padded(torch.ones(1, 1, dtype=torch.float64), side)
