"""Layers that the tests of `offset_attention` share."""

import torch
from torch import Tensor

from flashrib.model.attention.fibonacci.offsets import Order, Variant, head_offsets, pack_offsets

# patches, heads, head size, variant, order, depth, pictures
LAYERS: dict[str, tuple[int, int, int, Variant, Order, int, int]] = {
    "grid-7": (49, 3, 16, "standard", "depth", 1, 1),
    "modified": (49, 3, 16, "modified", "depth", 1, 2),  # offset 0, which counts once
    "first-term-beyond-window": (64, 12, 4, "standard", "depth0", 3, 1),
    "offsets-beyond-the-patches": (16, 12, 4, "standard", "none", 0, 1),  # heads with no offset at all
    "one-head": (20, 1, 16, "modified", "none", 0, 2),
    "two-patches": (2, 2, 16, "modified", "none", 0, 1),
    "odd-head-size": (37, 2, 20, "modified", "depth", 2, 1),
    "six-heads": (60, 6, 24, "standard", "depth", 1, 1),
}


def layer(name: str) -> tuple[Tensor, Tensor, int]:
    """qkv (B, N+1, 3*heads*D) in float64, its offsets, and the number of heads."""
    patches, heads, size, variant, order, depth, pictures = LAYERS[name]
    generator = torch.Generator().manual_seed(len(name))
    qkv = torch.randn(pictures, patches + 1, 3 * heads * size, generator=generator, dtype=torch.float64)
    qkv[..., : heads * size] *= 2 * size**-0.5
    return qkv, pack_offsets(head_offsets(patches, heads, depth, order, variant), patches), heads
