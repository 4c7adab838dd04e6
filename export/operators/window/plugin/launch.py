"""Launch of the window attention's kernel, as arithmetic that holds for integers and for TensorRT's symbolic dimensions alike."""

from collections.abc import Callable
from typing import Any

from flashrib.export.operators.plugin.launch import Launch, ceil_div
from flashrib.export.operators.plugin.ptx import Kernel
from flashrib.export.operators.window.plugin.layer import Layer
from flashrib.model.attention.window.tuning import Blocks, programs


def launch(
    layer: Layer,
    blocks: Blocks,
    kernel: Kernel,
    batch: Any,
    height: Any,
    width: Any,
    divide: Callable[[Any, int], Any] = ceil_div,
) -> Launch:
    """Return the launch for a feature map (B, H, W, 3*heads*D).

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
