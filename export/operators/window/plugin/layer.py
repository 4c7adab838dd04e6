"""What is fixed about an attention layer when its kernel is compiled."""

import dataclasses
from collections.abc import Sequence

from flashrib.model.attention.window.tuning import Blocks, blocks_for
from flashrib.model.config import Window
from flashrib.runtime.errors import UsageError

DTYPES = ("fp16", "bf16")  # the precisions that engines are built in


@dataclasses.dataclass(frozen=True)
class Layer:
    """An attention layer.

    Attributes:
        window: (rows, columns) of a window in pixels.
        heads: number of heads.
        head_dim: channels D of a head.
        rank: rank R of the position codes.
        shift: (rows, columns) that the map is rolled by before it is cut into windows.
        dtype: of all inputs and of the output, one of `DTYPES`.
    """

    window: Window
    heads: int
    head_dim: int
    rank: int
    shift: Window = (0, 0)
    dtype: str = "fp16"

    @property
    def tokens(self) -> int:
        return self.window[0] * self.window[1]


def layer_of_shapes(
    qkv: Sequence[int],
    pos_q: Sequence[int],
    pos_k: Sequence[int],
    window: Sequence[int],
    heads: int,
    shift: Sequence[int],
    dtype: str,
) -> Layer:
    """Return the layer of a node with inputs of these shapes; -1 stands for a side of the map that is not known yet.

    Args:
        qkv: (B, H, W, 3*heads*D).
        pos_q: (heads, N, R).
        pos_k: (heads, N, R).
        window: see `Layer`.
        heads: see `Layer`.
        shift: see `Layer`.
        dtype: see `Layer`.

    Raises:
        UsageError: shapes that do not belong together, or a dtype that the kernel does not have.
    """
    if dtype not in DTYPES:
        raise UsageError(
            f"the attention plugin computes in {', '.join(DTYPES)}, not in {dtype}: export the model again"
        )
    (rows, columns), (down, right) = window, shift
    tokens, codes = rows * columns, tuple(pos_q)
    channels = qkv[3] if len(qkv) == 4 else -1
    if channels < 1 or channels % (3 * heads) or codes != tuple(pos_k) or codes[:2] != (heads, tokens) or codes[2] < 1:
        raise UsageError(
            f"shapes do not belong together: qkv {tuple(qkv)}, pos_q {codes}, pos_k {tuple(pos_k)}, window {rows}x{columns},"
            f" {heads} heads; expected (B, H, W, 3*heads*D) and twice (heads, {tokens}, R)"
        )
    return Layer((rows, columns), heads, channels // (3 * heads), codes[2], (down, right), dtype)


def tactics(layer: Layer, capability: int) -> tuple[Blocks, ...]:
    """Return the block sizes that TensorRT may choose from on its GPU, no two alike; it measures them when it builds.

    First those of the tuning table without a limit of registers, so that nothing spills; then with the limit, where the table has one: it
    was measured to be faster for some layers, although a few registers spill. Most rows of the table are reasoned, not measured, so a
    smaller and a larger choice follow. The smaller one stays within the 48 KB of shared memory that a kernel has without asking for more.

    Args:
        layer: what is computed.
        capability: compute capability of the GPU, 10 * major + minor.
    """
    tuned = blocks_for(capability, layer.head_dim, layer.rank, layer.tokens)
    unlimited = dataclasses.replace(tuned, registers=None)
    return tuple(dict.fromkeys((unlimited, tuned, Blocks(64, 32, 4, 2), Blocks(128, 64, 8, 2))))
