"""What is fixed about a layer of offset attention when its kernel is compiled, and how that is launched."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from flashrib.export.operators.plugin.launch import Launch, ceil_div
from flashrib.export.operators.plugin.ptx import Kernel, compile_ptx
from flashrib.model.attention.fibonacci.kernel import offset_attention_kernel
from flashrib.model.attention.fibonacci.tuning import TABLE, Tiles, power_of_two
from flashrib.runtime.errors import UsageError

DTYPES = ("fp16", "bf16")  # the precisions that engines are built in
LARGEST = 2**30  # tokens of a program that has a whole head: more than there are


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of offset attention.

    Attributes:
        heads: number of heads.
        head_dim: channels D of a head.
        listed: offsets M of a head, with those that fill up.
        zero_logit: keys left out have logit 0.
        dtype: of qkv and of the output, one of `DTYPES`.
    """

    heads: int
    head_dim: int
    listed: int
    zero_logit: bool
    dtype: str = "fp16"


def layer_of_shapes(qkv: Sequence[int], offsets: Sequence[int], heads: int, mask_mode: int, dtype: str) -> Layer:
    """Return the layer of a node with inputs of these shapes, (B, N+1, 3*heads*D) and (heads, M); -1 stands for what is not known yet.

    Raises:
        UsageError: shapes that do not belong together, or a dtype that the kernel does not have.
    """
    if dtype not in DTYPES:
        raise UsageError(
            f"the attention plugin computes in {', '.join(DTYPES)}, not in {dtype}: export the model again"
        )
    channels = qkv[2] if len(qkv) == 3 else -1
    if channels < 1 or channels % (3 * heads) or len(offsets) != 2 or offsets[0] != heads or offsets[1] < 1:
        raise UsageError(
            f"shapes do not belong together: qkv {tuple(qkv)}, offsets {tuple(offsets)}, {heads} heads; expected (B, N+1, 3*heads*D) and"
            " (heads, M)"
        )
    return Layer(heads, channels // (3 * heads), offsets[1], mask_mode == 1, dtype)


def tactics(layer: Layer) -> tuple[Tiles, ...]:
    """Return the ways to cut a layer that TensorRT may choose from on its GPU; it measures them when it builds."""
    narrow = [
        dataclasses.replace(tiles, queries=max(16, tiles.queries * 64 // max(power_of_two(layer.head_dim), 64)))
        for _, tiles in TABLE
    ]
    if layer.zero_logit:
        narrow = [dataclasses.replace(tiles, blocks=LARGEST // tiles.queries) for tiles in narrow]
    return tuple(dict.fromkeys(dataclasses.replace(tiles, apart=False) for tiles in narrow))


@functools.cache
def compile_kernel(layer: Layer, capability: int, tiles: Tiles) -> Kernel:
    """Compile a layer for a compute capability; no GPU is needed. Parameters: qkv, offsets, tokens, span, out.

    Raises:
        FlashribError: see `compile_ptx`.
    """
    tensor = f"*{layer.dtype}"
    return compile_ptx(
        offset_attention_kernel,
        {"qkv": tensor, "offsets": "*i32", "tokens": "i32", "span": "i32", "out": tensor},
        {
            **dict.fromkeys(("sums", "parts", "lse")),
            "HEADS": layer.heads,
            "D": layer.head_dim,
            "DP": power_of_two(layer.head_dim),
            "M": layer.listed,
            "MP": power_of_two(layer.listed, 1),
            "BM": tiles.queries,
            "ZERO": layer.zero_logit,
            "FIRST": "whole" if layer.zero_logit else "own",
            "PACKED": True,
        },
        capability,
        warps=tiles.warps,
        what=f"the plugin of offset attention ({layer.heads} heads of {layer.head_dim}, sm_{capability})",
    )


def launch(
    layer: Layer, tiles: Tiles, kernel: Kernel, batch: Any, tokens: Any, divide: Callable[[Any, int], Any] = ceil_div
) -> Launch:
    """Return the launch for qkv (B, N+1, 3*heads*D).

    Args:
        layer: what is computed.
        tiles: how it is cut.
        kernel: as compiled with these tiles.
        batch: B, an integer or an expression.
        tokens: N + 1.
        divide: division that rounds up, of the same kind of numbers.
    """
    span = tiles.queries * tiles.blocks
    programs = batch * layer.heads if layer.zero_logit else batch * layer.heads * (divide(tokens - 1, span) + 1)
    return Launch(programs, 32 * kernel.warps, kernel.shared, (tokens, span))
