"""The noise that some models take beside a picture: a map of the whole result that any part of can be made on its own.

The map is made of squares of 256 x 256 values in three channels. The square in row i and column j is

    numpy.random.Generator(numpy.random.Philox(key=seed, counter=[0, 0, i, j])).standard_normal((3, 256, 256), dtype=numpy.float32)

so a tile gets the same noise as the whole picture has there, whatever the order of the tiles, the machine or the number of devices.
Philox is counter-based (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011).
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import UsageError

SQUARE = 256
MOST_SEEDS = 1 << 63


@dataclasses.dataclass(frozen=True)
class NoiseMap:
    """Standard normal noise of a result.

    Attributes:
        seed: which noise, 0 <= seed < 2^63.
        scale: magnification from the picture to the result.
    """

    seed: int = 0
    scale: int = 4

    def __post_init__(self) -> None:
        if not 0 <= self.seed < MOST_SEEDS:
            raise UsageError(f"seed {self.seed} is out of range: choose one from 0 to {MOST_SEEDS - 1}")

    def part(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return the noise of a part of the result: (1, 3, scale*H, scale*W) for the rows and columns of the picture, both with ends."""
        top, bottom, left, right = (self.scale * side for side in (rows.start, rows.stop, columns.start, columns.stop))
        noise = np.empty((1, 3, bottom - top, right - left), np.float32)
        for i in range(top // SQUARE, -(-bottom // SQUARE)):
            for j in range(left // SQUARE, -(-right // SQUARE)):
                y, x = i * SQUARE, j * SQUARE
                inner = slice(max(top - y, 0), bottom - y), slice(max(left - x, 0), right - x)
                outer = slice(max(y - top, 0), y + SQUARE - top), slice(max(x - left, 0), x + SQUARE - left)
                noise[0, :, outer[0], outer[1]] = self._square(i, j)[:, inner[0], inner[1]]
        return noise

    def _square(self, i: int, j: int) -> NDArray[np.float32]:
        random = np.random.Generator(np.random.Philox(key=self.seed, counter=[0, 0, i, j]))
        return random.standard_normal((3, SQUARE, SQUARE), dtype=np.float32)


def padded(side: int, multiple: int) -> int:
    """Return the side of a picture whose noise is meant: `side` rounded up to a multiple of the model's alignment."""
    return -(-side // multiple) * multiple


def repeated_noise(seed: int, scale: int, alignment: int, height: int, width: int) -> NDArray[np.float32]:
    """Return the noise that a model with the noise of a seed inside has, (1, 3, scale*H, scale*W) for H and W rounded up to `alignment`."""
    square = NoiseMap(seed, scale).part(slice(0, alignment), slice(0, alignment))
    return np.tile(square, (1, 1, padded(height, alignment) // alignment, padded(width, alignment) // alignment))
