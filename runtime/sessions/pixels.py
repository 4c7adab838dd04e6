"""Tiles as they are -> batches that models take, and back."""

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.sessions.protocol import Batch, Pixels


def to_batch(pixels: Pixels) -> Batch:
    """(H, W, 3) or (H, W), uint8, uint16 or float32 -> (1, 3, H, W) float32, 0..1."""
    height, width = pixels.shape[:2]
    batch = np.empty((1, 3, height, width), np.float32)
    batch[0] = pixels if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if pixels.dtype != np.float32:
        batch /= np.float32(np.iinfo(pixels.dtype).max)
    return batch


def to_pixels(result: NDArray[np.float32], target: Pixels) -> None:
    """(3, H, W) -> `target` (H, W, 3) or (H, W): clamped and rounded half to even where it is an integer, the mean where it is gray."""
    if target.ndim == 2:
        result = result.mean(axis=0, keepdims=True)
    if target.dtype != np.float32:
        result = np.clip(result, 0, 1)  # a copy: the array belongs to the session
        result *= np.float32(np.iinfo(target.dtype).max)
        np.rint(result, out=result)
    target[...] = result[0] if target.ndim == 2 else result.transpose(1, 2, 0)
