"""Sessions in pure numpy, each with a known weakness of real models, so that tiled == whole can be asserted exactly."""

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import OutOfMemoryError
from flashrib.runtime.sessions.base import SessionBase
from flashrib.runtime.sessions.protocol import Batch


class FakeSession(SessionBase):
    """Nearest-neighbour upscaling; the base of the others. `shapes` records the (H, W) of every run."""

    def __init__(
        self,
        scale: int = 2,
        alignment: int = 8,
        minimum: int = 5,
        fixed_size: tuple[int, int] | None = None,
        whole_picture: bool = False,
    ) -> None:
        self.info = ModelInfo(
            scale=scale, alignment=alignment, minimum=minimum, fixed_size=fixed_size, whole_picture=whole_picture
        )
        self.shapes: list[tuple[int, int]] = []

    def run(self, batch: Batch) -> Batch:
        height, width = batch.shape[2:]
        assert batch.dtype == np.float32
        assert batch.flags.c_contiguous
        assert min(height, width) >= self.info.minimum
        assert self.info.fixed_size in (None, (height, width))
        self.shapes.append((height, width))
        return np.asarray(self.change(batch).repeat(self.info.scale, axis=2).repeat(self.info.scale, axis=3))

    def change(self, batch: Batch) -> Batch:
        return batch

    def close(self) -> None:
        pass


class WindowSession(FakeSession):
    """Every pixel minus half the maximum of its window: another partition into windows gives another result.

    The far edges are padded to whole windows by reflection, as the attention operator does.
    """

    def change(self, batch: Batch) -> Batch:
        height, width = batch.shape[2:]
        side = self.info.alignment
        whole = mirror(mirror(batch, -(-height // side) * side, axis=2), -(-width // side) * side, axis=3)
        windows = whole.reshape(*batch.shape[:2], whole.shape[2] // side, side, whole.shape[3] // side, side)
        maximum = windows.max(axis=(3, 5)).repeat(side, axis=2).repeat(side, axis=3)
        return np.asarray(batch - maximum[:, :, :height, :width] / 2)


class BlurredWindowSession(WindowSession):
    """`WindowSession`, then the mean over a box: a pixel depends on the windows of all pixels within `radius`."""

    radius = 4

    def change(self, batch: Batch) -> Batch:
        changed = super().change(batch)
        height, width = batch.shape[2:]
        edges = [(0, 0), (0, 0), (self.radius, self.radius), (self.radius, self.radius)]
        padded = np.pad(changed, edges, mode="reflect")
        total = np.zeros_like(changed)
        # Added one by one in a fixed order: the sum is the same to the last bit wherever the tile lies.
        for top in range(2 * self.radius + 1):
            for left in range(2 * self.radius + 1):
                total += padded[:, :, top : top + height, left : left + width]
        return np.asarray(total / np.float32((2 * self.radius + 1) ** 2))


class SmallMemorySession(BlurredWindowSession):
    """Fails on more than `limit` pixels with `error`."""

    limit = 0
    error: type[Exception] = OutOfMemoryError

    def change(self, batch: Batch) -> Batch:
        if batch.shape[2] * batch.shape[3] > self.limit:
            raise self.error("does not fit")
        return super().change(batch)


def mirror(array: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float32]:
    """Continue `array` along `axis` to `size` by reflection, written as numpy does it: slow, obvious, for any length."""
    while array.shape[axis] < size:
        length = array.shape[axis]
        more = min(size - length, max(1, length - 1))
        widths = [(0, more) if index == axis else (0, 0) for index in range(array.ndim)]
        array = np.pad(array, widths, mode="reflect" if length > 1 else "edge")
    return array
