"""How the kernel is launched, as arithmetic that holds for integers and for TensorRT's symbolic dimensions alike."""

import dataclasses
from collections.abc import Callable
from typing import Any

from flashrib.export.operators.window.plugin.compile import Kernel
from flashrib.export.operators.window.plugin.layer import Layer
from flashrib.model.attention.window.tuning import Blocks, programs


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
    extra: tuple[Any, Any]


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def launch(
    layer: Layer,
    blocks: Blocks,
    kernel: Kernel,
    batch: Any,
    height: Any,
    width: Any,
    divide: Callable[[Any, int], Any] = ceil_div,
) -> Launch:
    """Return the launch for a map (B, H, W, 3*heads*D).

    Args:
        layer: what is computed.
        blocks: how a window is cut.
        kernel: as compiled with these blocks.
        batch: B, an integer or an expression.
        height: H.
        width: W.
        divide: division that rounds up, of the same kind of numbers.
    """
    windows = divide(height, layer.window[0]) * divide(width, layer.window[1]) * batch
    grid = programs(windows, layer.heads, layer.tokens, blocks)
    return Launch(grid, 32 * kernel.warps, kernel.shared, (height, width))
