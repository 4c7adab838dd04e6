"""Resizing the head of a trained network to another magnification.

It starts a fine-tuning (x2 -> x3 -> x4); it does not make a trained network of the new magnification.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

WEIGHT, BIAS = "upsampler.up_conv.weight", "upsampler.up_conv.bias"


def resize_subpixels(tensor: Tensor, source: int, target: int) -> Tensor:
    """Resize the source x source subpixel grid among the output channels of a pixel-shuffle convolution to target x target.

    Bilinear, without antialiasing and with aligned edges of the pixels (`align_corners=False`), as the official code does it.

    Args:
        tensor: (G * source**2, ...), channel = g * source**2 + subpixel row * source + subpixel column.
        source: magnification that the tensor was trained for.
        target: magnification wanted.

    Returns:
        (G * target**2, ...), in the same order.
    """
    rest = tensor.shape[1:]
    grids = tensor.reshape(-1, source, source, rest.numel()).permute(0, 3, 1, 2)  # (G, rest, r0, r0)
    grids = F.interpolate(grids, size=(target, target), mode="bilinear", align_corners=False)
    return grids.permute(0, 2, 3, 1).reshape(-1, *rest).contiguous()


def resize_head(state_dict: Mapping[str, Tensor], source: int, target: int) -> dict[str, Tensor]:
    """Return the state dict with a head for magnification `target`; heads "pixelshuffle_direct" and "pixelshuffle" only."""
    return {
        key: resize_subpixels(value, source, target) if key in (WEIGHT, BIAS) else value
        for key, value in state_dict.items()
    }
