"""Blocks of the kernels, as data, measured on one H200 by `benchmarks/gpu_passes.py --tune`; reasoned for other GPUs (docs/gpu.md)."""

import dataclasses

CHUNK = 64  # channels that `chain_kernel` works on at a time; weights are completed to multiples of it


@dataclasses.dataclass(frozen=True)
class Tile:
    """A program of `chain_kernel`: pixels, warps, and chunks of weights in flight."""

    pixels: int
    warps: int
    stages: int


@dataclasses.dataclass(frozen=True)
class Strip:
    """A program of `depthwise_kernel`: rows and pairs of adjacent pixels, channels, warps."""

    rows: int
    pairs: int
    channels: int
    warps: int


def tile_for(dim: int, element_size: int, products: bool = True) -> Tile:
    """Tile of a pass whose x has `dim` channels.

    Two programs of 64 pixels share a multiprocessor of Hopper: three chunks in flight take 96 KB up to 192 channels, two take 80 KB
    above that. float32 takes twice as much of everything. A pass without products needs no weights, only many warps.
    """
    if not products:
        return Tile(16, 4, 1)
    if element_size == 4:
        return Tile(32, 4, 1)
    return Tile(64, 4, 3 if dim <= 3 * CHUNK else 2)


def strip_for(channels: int) -> Strip:
    """Strip of a depthwise convolution: the rows share what they read, the chunk of channels wastes little of its last program."""
    return Strip(4, 4, 64, 4) if channels > 2 * CHUNK else Strip(8, 16, 32, 4)
