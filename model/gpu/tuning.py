"""Blocks of the kernels, as data, measured on an H100 by tuning runs; reasoned for other GPUs (docs/gpu.md)."""

import dataclasses

CHUNK = 64  # channels that the kernels with matmuls work on at a time; weights are padded to multiples of it

# 80 KB in 16 bits: with what the compiler adds, in the 99 KB of GPUs of capability 8.6, 8.9 and 12.0
SHARED_ELEMENTS = 40 << 10


def fits_chain(dim: int, width: int, out: int) -> bool:
    """Whether `chain_kernel` holds all at once: `width` inputs of 64 pixels and both weights, to `dim` and to `out` channels."""
    return dim <= CHUNK and CHUNK * (2 * width + out) <= SHARED_ELEMENTS


@dataclasses.dataclass(frozen=True)
class Tile:
    """A program of a pointwise kernel: pixels, warps, and chunks of weights in flight, where they do not all fit."""

    pixels: int
    warps: int
    stages: int = 1


@dataclasses.dataclass(frozen=True)
class Strip:
    """A program of `depthwise_kernel`: rows and pairs of adjacent pixels, channels, warps."""

    rows: int
    pairs: int
    channels: int
    warps: int


def tile_for(width: int, out: int, element_size: int) -> Tile:
    """Tile of `chain_kernel` with `width` inputs of its first matmul and `out` outputs of the second one; 0 where there is none.

    Larger tiles share many weights, as long as a multiprocessor holds several tiles with all their weights.
    """
    if element_size == 4:
        return Tile(32, 4)
    return Tile(128 if out > 2 * CHUNK and width + out <= 4 * CHUNK else 64, 4)


def wide_tile_for(dim: int, out: int, element_size: int) -> Tile:
    """Tile of `wide_kernel` for `dim` channels and `out` outputs of its matmul.

    Two programs of 64 pixels share a multiprocessor of Hopper: three chunks in flight take 96 KB up to 192 channels, two take 80 KB
    above that. float32 takes twice as much of everything. A pass without a matmul needs no weights, only many warps.
    """
    if not out:
        return Tile(8, 4)
    if element_size == 4:
        return Tile(32, 4)
    return Tile(64, 4, 3 if dim <= 3 * CHUNK else 2)


def mix_tile_for(element_size: int) -> Tile:
    """Tile of `mix_kernel`, of groups of pixels."""
    return Tile(32 if element_size == 4 else 64, 4)


def strip_for(channels: int) -> Strip:
    """Strip of a depthwise convolution: the rows share what they read, the chunk of channels wastes little of its last program."""
    if channels <= 16:
        return Strip(8, 16, 16, 4)
    return Strip(8, 8, 32, 4) if channels <= 2 * CHUNK else Strip(8, 4, 64, 4)
