"""Pictures of what the heads of a Fibottention ViT see."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from flashrib.model.architectures.fibottention_vit.config import FibottentionConfig
from flashrib.model.architectures.fibottention_vit.network import layer_offsets
from flashrib.model.attention.fibonacci.offsets import support

MOST = 400  # pixels of a map's side; longer sequences are drawn with several tokens a pixel
GAP = 8  # white pixels between maps
SEEN, UNSEEN, OWN = (32, 64, 160), (226, 226, 230), (220, 60, 30)


def pictures(config: FibottentionConfig) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield for every layer a file name and a picture (H, W, 3): each head's pairs, and below them the patches that the middle one sees.

    In the upper map rows are queries and columns keys, the class token first; the lower one is the square of patches, the middle patch red.
    """
    tokens = config.patches + 1
    for depth in range(config.depth):
        offsets = layer_offsets(config, depth)
        columns = []
        for head in range(config.heads):
            if config.mask_mode == "dense":
                kept = torch.ones(tokens, tokens, dtype=torch.bool)
            else:
                kept = support(offsets[head : head + 1], tokens)[0]
            columns.append(_column(kept.numpy(), config.grid))
        height = max(len(column) for column in columns)
        parts = [_framed(column, height) for column in columns]
        yield f"layer-{depth:02}.png", np.concatenate(parts, axis=1)


def _column(kept: NDArray[np.bool_], grid: int) -> NDArray[np.uint8]:
    """Both maps of a head, one above the other, of one width."""
    tokens = len(kept)
    step = -(-tokens // MOST)
    padded = np.pad(kept, (0, -tokens % step))
    side = len(padded) // step
    pairs = padded.reshape(side, step, side, step).any(axis=(1, 3))
    zoom = max(1, 160 // side)
    upper = _coloured(pairs.repeat(zoom, 0).repeat(zoom, 1))
    middle = grid // 2 * grid + grid // 2
    seen = _coloured(kept[1 + middle, 1:].reshape(grid, grid))
    seen[grid // 2, grid // 2] = OWN
    cell = max(1, len(upper) // grid)
    lower = seen.repeat(cell, 0).repeat(cell, 1)[: len(upper), : len(upper)]
    lower = np.pad(lower, ((GAP, 0), (0, len(upper) - lower.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([upper, lower])


def _coloured(seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(seen[..., None], np.array(SEEN, np.uint8), np.array(UNSEEN, np.uint8))


def _framed(column: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    return np.pad(column, ((GAP, GAP + height - len(column)), (GAP, GAP), (0, 0)), constant_values=255)
