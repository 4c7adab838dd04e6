"""The two 8-bit formats: their grids, and arrays rounded to them."""

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MODES = ("int8", "fp8")


@dataclasses.dataclass(frozen=True)
class Format:
    """An 8-bit format for symmetric quantization: a value is `scale` times a number of the grid.

    Attributes:
        name: "int8" or "fp8".
        largest: of the grid. INT8 does without -128, so that it is symmetric, as TensorRT wants it; FP8 is E4M3 (ends at 448).
        per_channel: whether weights have a scale per output channel. In FP8 they have one scale: its relative precision is the
            same at every size, and TensorRT takes scales per channel in some of its FP8 kernels only.
    """

    name: str
    largest: float
    per_channel: bool

    @property
    def dtype(self) -> Any:
        return np.int8 if self.name == "int8" else ml_dtypes.float8_e4m3fn

    def rounded(self, values: NDArray[Any], scale: NDArray[Any] | float) -> Floats:
        """`values` after quantization and dequantization; what is beyond the largest value becomes the largest."""
        grid = np.clip(np.asarray(values, np.float32) / scale, -self.largest, self.largest)
        grid = np.rint(grid) if self.name == "int8" else grid.astype(self.dtype)
        result: Floats = grid.astype(np.float32) * np.asarray(scale, np.float32)
        return result

    def scale_of(self, largest: NDArray[Any] | float) -> NDArray[np.float32]:
        """Scale of a tensor whose values reach `largest`; that of an empty range is 1, any would do."""
        values = np.asarray(largest, np.float32) / np.float32(self.largest)
        return np.where(values > 0, np.maximum(values, np.finfo(np.float32).tiny), np.float32(1)).astype(np.float32)

    def weight_scale(self, weight: NDArray[Any], axis: int) -> NDArray[np.float32]:
        """Scale of a weight, one per entry of `axis` or a single one, so that nothing is clipped."""
        others = tuple(i for i in range(weight.ndim) if i != axis)
        return self.scale_of(np.abs(weight).max(others if self.per_channel else None))


FORMATS = {"int8": Format("int8", 127.0, True), "fp8": Format("fp8", 448.0, False)}
