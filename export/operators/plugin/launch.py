"""How a kernel is launched: numbers, or TensorRT's expressions of dimensions that are known only when the engine runs."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Launch:
    """Launch of a kernel; numbers, or TensorRT's expressions.

    Attributes:
        grid: blocks in x; one in y and z.
        threads: threads of a block.
        shared: bytes of dynamic shared memory.
        extra: 32-bit integers between the input and the output tensors.
    """

    grid: Any
    threads: int
    shared: int
    extra: tuple[Any, ...]

    def for_tensorrt(self, trtp: Any) -> tuple[Any, Any]:
        """Return it as `KernelLaunchParams` and `SymIntExprs` of TensorRT's module `tensorrt.plugin`."""
        parameters = trtp.KernelLaunchParams()
        parameters.grid_x, parameters.block_x, parameters.shared_mem = self.grid, self.threads, self.shared
        extra = trtp.SymIntExprs(len(self.extra))
        for index, value in enumerate(self.extra):
            extra[index] = trtp.SymInt32(value)
        return parameters, extra


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)
