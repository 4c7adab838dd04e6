"""What is fixed about a layer, its kernel and its launch."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from flashrib.export.operators.plugin.launch import Launch
from flashrib.export.operators.plugin.ptx import Kernel, compile_ptx
from flashrib.model.attention.disc.blocks import cells
from flashrib.model.attention.disc.kernel import disc_attention_kernel
from flashrib.model.attention.disc.tuning import Blocks, blocks_for, power_of_two
from flashrib.runtime.errors import UsageError

DTYPES = ("fp16", "bf16")  # the precisions that engines are built in


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of one size.

    Attributes:
        grid: (H, W) of the picture's tokens.
        text: number of text tokens.
        radius: of the disc.
        scale: of the logits.
        pooled: number of pooled keys.
        heads: number of heads.
        head_dim: channels D of a head.
        dtype: of q, k, v and the output, one of `DTYPES`.
    """

    grid: tuple[int, int]
    text: int
    radius: int
    scale: float
    pooled: int
    heads: int
    head_dim: int
    dtype: str = "fp16"

    @property
    def tokens(self) -> int:
        """Tokens n of text and picture."""
        return self.text + self.grid[0] * self.grid[1]


def layer_of_shapes(
    q: Sequence[int],
    k: Sequence[int],
    grid: tuple[int, int],
    text: int,
    radius: int,
    scale: float,
    pooled: int,
    dtype: str,
) -> Layer:
    """Return the layer of a node with q (B, n, h, D) and k (B, n + pooled, h, D).

    Raises:
        UsageError: shapes that do not belong together, or a dtype that the kernel does not have in an engine.
    """
    if dtype not in DTYPES:
        raise UsageError(f"the attention plugin computes in {', '.join(DTYPES)}, not in {dtype}: export the model anew")
    n = text + grid[0] * grid[1]
    if len(q) != 4 or q[1] != n or tuple(k[1:]) != (n + pooled, *q[2:]):
        raise UsageError(
            f"shapes do not belong together: q {tuple(q)}, k {tuple(k)}, {text} text tokens, grid {grid[0]}x{grid[1]}, {pooled}"
            f" pooled; expected q (B, {n}, heads, D), k (B, {n + pooled}, heads, D)"
        )
    return Layer(grid, text, radius, scale, pooled, q[2], q[3], dtype)


@functools.cache
def compile_kernel(layer: Layer, capability: int) -> Kernel:
    """Compile a layer for a compute capability; no GPU is needed. Parameters: q, k, v, starts, full, blocks, out, lse.

    Raises:
        FlashribError: see `compile_ptx`.
    """
    blocks = blocks_for(capability, layer.head_dim, layer.radius)
    tensor = f"*{layer.dtype}"
    return compile_ptx(
        disc_attention_kernel,
        dict.fromkeys(("q", "k", "v"), tensor)
        | dict.fromkeys(("starts", "full", "blocks"), "*i32")
        | {"out": tensor, "lse": "*fp32"},
        constants(layer, blocks, "ieee"),
        capability,
        warps=blocks.warps,
        registers=blocks.registers,
        what=f"the attention plugin (radius {layer.radius}, {layer.grid[0]}x{layer.grid[1]} tokens, sm_{capability})",
    )


def constants(layer: Layer, blocks: Blocks, precision: str) -> dict[str, Any]:
    """The kernel's compile-time arguments for contiguous operands of one size."""
    step = layer.heads * layer.head_dim
    keys = (layer.tokens + layer.pooled) * step
    return {
        "H": layer.grid[0],
        "W": layer.grid[1],
        "text": layer.text,
        "text_begin": 0,
        "text_end": layer.tokens,
        "radius": layer.radius,
        "pooled": layer.pooled,
        "scale": layer.scale,
        "q_batch": layer.tokens * step,
        "k_batch": keys,
        "v_batch": keys,
        **dict.fromkeys(("q_stride", "k_stride", "v_stride"), step),
        "failed": None,
        "HEADS": layer.heads,
        "D": layer.head_dim,
        "DP": power_of_two(layer.head_dim),
        "TY": blocks.tile[0],
        "TX": blocks.tile[1],
        "KY": blocks.keys[0],
        "KX": blocks.keys[1],
        "STAGES": blocks.stages,
        "PRECISION": precision,
    }


def programs(layer: Layer, blocks: Blocks) -> int:
    """Programs of a picture."""
    ty, tx = blocks.tile
    return layer.heads * (cells(layer.text, ty * tx) + cells(layer.grid[0], ty) * cells(layer.grid[1], tx))


def launch(layer: Layer, capability: int, kernel: Kernel, batch: Any) -> Launch:
    """Return the launch for a batch, an integer or TensorRT's expression."""
    blocks = blocks_for(capability, layer.head_dim, layer.radius)
    return Launch(batch * programs(layer, blocks), 32 * kernel.warps, kernel.shared, ())
