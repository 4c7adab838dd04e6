"""Block sizes of the fused kernel, as data: per compute capability, for the widths of a head and the number of tokens of a window.

Rows of sm_90 are measured on an H200 and an H100 (`benchmarks/attention_kernel.py --tune`; figures in BENCHMARKS.md), except that heads of
32 channels with ranks up to 16 share the rows of higher ranks from 2304 tokens on. The rows of the other capabilities are **reasoned,
not measured**: without Hopper's warpgroup products (80, 86, 87, 89, 120, and 110, for which Triton 3.6 uses the older ones) scores stay
in registers, and blocks of 32 keys leave room for two programs of 8 warps; 100 keeps accumulators in tensor memory, 128 rows at a time.
`docs/plugin.md` lists registers and shared memory of all of them.
"""

import dataclasses
from typing import Any

from flashrib.model.sizes import ceil_div


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How the kernel cuts a window.

    Attributes:
        queries: queries of a program (BM).
        keys: keys of a block (BN).
        warps: warps of a program.
        stages: blocks of keys in flight.
        registers: most registers of a thread, where the compiler's own choice costs a program per multiprocessor; None leaves it.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    registers: int | None = None


# (least tokens of a window, blocks), ascending; the last row that fits counts.
Rows = tuple[tuple[int, Blocks], ...]

_HOPPER_16_16: Rows = (
    (0, Blocks(64, 32, 4, 3)),
    (256, Blocks(128, 32, 4, 3, 96)),
    (1024, Blocks(64, 64, 4, 3, 80)),
    (2304, Blocks(128, 64, 8, 3, 72)),
)
_HOPPER_16: Rows = (
    (0, Blocks(64, 32, 4, 3)),
    (256, Blocks(128, 32, 4, 3, 96)),
    (1024, Blocks(128, 64, 8, 3, 80)),
    (4096, Blocks(128, 64, 4, 3, 128)),
)
_HOPPER_WIDE: Rows = (
    (0, Blocks(64, 32, 4, 3)),
    (256, Blocks(128, 32, 4, 3, 96)),
    (1024, Blocks(128, 64, 8, 3, 80)),
    (2304, Blocks(128, 64, 8, 4, 80)),
)
_AMPERE: Rows = ((0, Blocks(64, 64, 4, 2)), (256, Blocks(128, 32, 8, 2)))
_BLACKWELL_SERVER: Rows = ((0, Blocks(64, 64, 4, 2)), (256, Blocks(128, 64, 8, 2)))

# Heads of 16 channels with ranks up to 16, heads of 16 channels with higher ranks, wider heads; as the kernel pads them.
TABLE: dict[int, tuple[Rows, Rows, Rows]] = {
    80: (_AMPERE, _AMPERE, _AMPERE),
    86: (_AMPERE, _AMPERE, _AMPERE),
    87: (_AMPERE, _AMPERE, _AMPERE),
    89: (_AMPERE, _AMPERE, _AMPERE),
    90: (_HOPPER_16_16, _HOPPER_16, _HOPPER_WIDE),
    100: (_BLACKWELL_SERVER, _AMPERE, _AMPERE),
    110: (_AMPERE, _AMPERE, _AMPERE),
    120: (_AMPERE, _AMPERE, _AMPERE),
}
CAPABILITIES = tuple(TABLE)


def power_of_two(width: int) -> int:
    """Smallest power of two >= `width`, at least 16: what the kernel's blocks are made of."""
    return max(16, 1 << (width - 1).bit_length())


def blocks_for(capability: int, head_dim: int, rank: int, tokens: int, element_size: int = 2) -> Blocks:
    """Blocks for a layer.

    Args:
        capability: compute capability of the device, 10 * major + minor; one that is not in the table takes the nearest below.
        head_dim: channels D of a head.
        rank: rank R of the position codes.
        tokens: tokens N of a window.
        element_size: bytes of an element, 2 or 4.
    """
    known = max((c for c in CAPABILITIES if c <= capability), default=CAPABILITIES[0])
    head, code = power_of_two(head_dim), power_of_two(rank)
    rows = TABLE[known][2 if head > 16 else 1 if code > 16 else 0]
    blocks = [b for least, b in rows if tokens >= least][-1]
    most = power_of_two(tokens)
    queries, keys = min(blocks.queries, max(most, 64)), min(blocks.keys, most)
    if element_size == 4 or head + code > 128:
        queries, keys = min(queries, 64), min(keys, 32)  # elements twice as wide, or twice as many, need the registers
        return Blocks(queries, keys, 4, min(blocks.stages, 2))
    return Blocks(queries, keys, blocks.warps, blocks.stages, blocks.registers)


def repeat_stages(capability: int) -> int:
    """Blocks of keys in flight where a program repeats its work.

    One, for registers, but two on sm_90: with one, the assembler of CUDA 12.8 makes code that reads a register which nothing has
    written, and so reads outside of shared memory; `tests/sass.py` finds such code.
    """
    return 2 if capability // 10 == 9 else 1


# Backward pass on sm_90, measured on an H100 and an H200 at batch 8, 96 x 96 pixels, bf16: (least tokens, that which owns keys, that
# which owns queries), heads of 16 channels and wider ones. Other capabilities take the row below, reasoned and not measured.
_BACKWARD_HOPPER_16: tuple[tuple[int, Blocks, Blocks], ...] = (
    (0, Blocks(32, 128, 4, 3), Blocks(64, 64, 4, 3, 128)),
    (1024, Blocks(128, 64, 4, 2), Blocks(64, 64, 4, 3, 128)),
)
_BACKWARD_HOPPER_WIDE = ((0, Blocks(128, 64, 4, 3), Blocks(64, 64, 4, 3, 128)),)
_BACKWARD_OTHERS = (Blocks(64, 64, 4, 2), Blocks(64, 64, 4, 2))


def backward_blocks_for(
    capability: int, head_dim: int, rank: int, tokens: int, element_size: int = 2
) -> tuple[Blocks, Blocks]:
    """Blocks of the two kernels of the backward pass: that which owns keys and that which owns queries.

    Arguments as in `blocks_for`.
    """
    most = max(power_of_two(tokens), 32)
    if element_size == 4:
        owns_keys, owns_queries = Blocks(32, 64, 4, 1), Blocks(64, 32, 4, 1)
    elif power_of_two(head_dim) + power_of_two(rank) > 64:
        owns_keys, owns_queries = Blocks(32, 64, 4, 2), Blocks(64, 32, 4, 2)  # wide tiles need the registers
    elif capability // 10 == 9:
        rows = _BACKWARD_HOPPER_WIDE if power_of_two(head_dim) > 16 else _BACKWARD_HOPPER_16
        owns_keys, owns_queries = [row[1:] for row in rows if tokens >= row[0]][-1]
    else:
        owns_keys, owns_queries = _BACKWARD_OTHERS
    smaller = (
        dataclasses.replace(blocks, queries=min(blocks.queries, most), keys=min(blocks.keys, most))
        for blocks in (owns_keys, owns_queries)
    )
    return next(smaller), next(smaller)


def programs(windows: Any, heads: int, tokens: int, blocks: Blocks) -> Any:
    """Number of programs of a launch, its grid in x.

    Args:
        windows: windows of all pictures of the batch, an integer or an expression that multiplies with integers.
        heads: heads of the layer.
        tokens: tokens N of a window.
        blocks: how a window is cut.
    """
    return windows * (heads * ceil_div(tokens, blocks.queries))
