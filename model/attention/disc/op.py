"""`disc_attention` as an operator of PyTorch: the Triton kernel on a CUDA GPU, tiles in plain PyTorch elsewhere, gradients by
recomputation."""

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from flashrib.model.attention.disc.blocks import Side, block_lists, cells
from flashrib.model.attention.disc.schedule import BLOCK, SIDE, make_schedule
from flashrib.model.attention.disc.tiled import disc_attention_backward, disc_attention_tiled
from flashrib.model.attention.disc.tuning import Blocks, blocks_for, power_of_two

_HOPPER_SIDE = 16376  # tokens; the kernel keeps the row of a block in 12 bits, with a sign


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # for later calls in training too
def device_lists(
    grid: Side, radius: int, tile: Side, block: Side, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """`block_lists` on a device, shared by all layers that see the same size: starts, full, blocks."""
    lists = block_lists(grid, radius, tile, block)
    starts, full, blocks = (torch.from_numpy(x).to(device) for x in (lists.starts, lists.full, lists.blocks))
    return starts, full, blocks


@functools.cache
def _capability(device: torch.device) -> int:
    if device.type != "cuda":
        return 90  # Triton's interpreter on the CPU: any blocks will do
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def token_major(x: Tensor) -> Tensor:
    """Return `x` (B, n, h, D) with heads side by side, as the kernels read it; a slice of a (B, n, 3*h*D) map stays where it is."""
    fits = x.stride(3) == 1 and x.stride(2) == x.shape[3]
    return x if fits else x.contiguous()


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Side,
    text: int,
    radius: int,
    scale: float,
    pooled: int,
    blocks: Blocks | None = None,
    into: tuple[Tensor, Tensor, Tensor] | None = None,
    text_keys: Side | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the Triton kernel.

    Args:
        q: operands and facts, see `flashrib.model.attention.disc.disc_attention`; `scale` as a number.
        k: likewise.
        v: likewise.
        grid: likewise.
        text: likewise.
        radius: likewise.
        scale: likewise.
        pooled: likewise.
        blocks: for measuring; None takes those of the tuning table.
        into: out and lse to write, and an int32; where this is 0, nothing is computed.
        text_keys: first and last + 1 token that text queries see; None: all.
    """
    from flashrib.model.attention.disc.kernel import disc_attention_kernel

    q, k, v = token_major(q), token_major(k), token_major(v)
    batch, n, heads, dim = q.shape
    chosen = blocks or blocks_for(_capability(q.device), dim, radius, q.element_size())
    (ty, tx), (ky, kx) = chosen.tile, chosen.keys
    lists = device_lists(grid, radius, chosen.tile, chosen.keys, q.device)
    out = q.new_empty(batch, n, heads, dim) if into is None else into[0]
    lse = q.new_empty(batch, heads, n, dtype=torch.float32) if into is None else into[1]
    tiles = cells(text, ty * tx) + cells(grid[0], ty) * cells(grid[1], tx)
    disc_attention_kernel[(batch * heads * tiles,)](
        q,
        k,
        v,
        *lists,
        *grid,
        text,
        *((0, n) if text_keys is None else text_keys),
        radius,
        pooled,
        scale,
        q.stride(0),
        q.stride(1),
        k.stride(0),
        k.stride(1),
        v.stride(0),
        v.stride(1),
        out,
        lse,
        None if into is None else into[2],
        HEADS=heads,
        D=dim,
        DP=power_of_two(dim),
        TY=ty,
        TX=tx,
        KY=ky,
        KX=kx,
        STAGES=chosen.stages,
        PRECISION="tf32x3",
        num_warps=chosen.warps,
        maxnreg=chosen.registers,
    )
    return out, lse


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # for later calls in training too
def _device_schedule(device: torch.device, *facts: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    plan = make_schedule(*facts)
    work, schedule, meta, entries = (
        torch.from_numpy(x).to(device) for x in (plan.work, plan.schedule, plan.meta, plan.entries)
    )
    return work, schedule, meta, entries


def not_supported_by_hopper(q: Tensor, k: Tensor, v: Tensor, grid: Side, text: int) -> list[str]:
    """Why the Hopper kernel cannot take these operands; empty if it can."""
    reasons = []
    if _capability(q.device) // 10 != 9 or q.device.type != "cuda":
        reasons.append("it needs a GPU of compute capability 9.x")
    if q.dtype not in (torch.float16, torch.bfloat16):
        reasons.append(f"it computes in float16 and bfloat16, not in {q.dtype}")
    if q.shape[3] not in (64, 128):
        reasons.append(f"it has heads of 64 and 128 channels, not of {q.shape[3]}")
    if text < BLOCK:
        reasons.append(f"it needs {BLOCK} text tokens or more, there are {text}")
    if max(grid) > _HOPPER_SIDE:
        reasons.append(f"it takes sides up to {_HOPPER_SIDE}")
    if any(x.data_ptr() % 16 or x.stride(1) % 8 or x.stride(0) % 8 for x in (q, k, v)):
        reasons.append("operands must be aligned to 16 bytes")
    return reasons


def launch_hopper(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Side,
    text: int,
    radius: int,
    scale: float,
    pooled: int,
    stages: int = 5,
    registers: int = 232,
    repair: bool = True,
    rows: Side | None = None,
    text_keys: Side | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the Hopper kernel, and `kernel.py` after it, which does nothing unless a weight left its type.

    Args:
        q: operands and facts, see `flashrib.model.attention.disc.disc_attention`; `scale` as a number.
        k: likewise.
        v: likewise.
        grid: likewise.
        text: likewise.
        radius: likewise.
        scale: likewise.
        pooled: likewise.
        stages: blocks of keys in flight.
        registers: of a thread that computes.
        repair: False leaves out the second launch, for measuring.
        rows: first and last + 1 row of the picture whose queries are wanted; None: all. Other results stay undefined.
        text_keys: first and last + 1 token that text queries see, 64 or more; None: all.
    """
    from triton.experimental.gluon.language import NVMMASharedLayout
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

    from flashrib.model.attention.disc.hopper import disc_attention_hopper

    q, k, v = token_major(q), token_major(k), token_major(v)
    batch, n, heads, dim = q.shape
    height, width = grid
    programs = torch.cuda.get_device_properties(q.device).multi_processor_count
    seen = (0, n) if text_keys is None else text_keys
    plan = _device_schedule(q.device, grid, text, radius, pooled, batch, heads, programs, rows, seen[1] - seen[0])
    out = q.new_empty(batch, n, heads, dim)
    lse = q.new_empty(batch, heads, n, dtype=torch.float32)
    failed = torch.zeros(1, dtype=torch.int32, device=q.device)
    descriptors = []
    for x in (q, k, v):
        outer, step, channels = x.stride(0), x.stride(1), heads * dim
        line, area = (NVMMASharedLayout(128, 16, rank) for rank in (3, 4))
        descriptors += [
            TensorDescriptor(x, [batch, x.shape[1], channels], [outer, step, 1], [1, BLOCK, dim], line),
            TensorDescriptor(
                x[:, text:],
                [batch, height, width, channels],
                [outer, width * step, step, 1],
                [1, SIDE, SIDE, dim],
                area,
            ),
        ]
    disc_attention_hopper[(programs,)](
        *descriptors,
        *plan,
        height,
        width,
        text,
        *seen,
        radius,
        pooled,
        scale,
        out,
        lse,
        failed,
        HEADS=heads,
        D=dim,
        STAGES=stages,
        REGISTERS=registers,
        num_warps=4,
    )
    if repair:
        launch(q, k, v, grid, text, radius, scale, pooled, into=(out, lse, failed), text_keys=seen)
    return out, lse


@torch.library.custom_op("flashrib::disc_attention", mutates_args=(), device_types="cpu")
def _disc_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: list[int], text: int, radius: int, scale: float, pooled: int
) -> tuple[Tensor, Tensor]:
    return disc_attention_tiled(q, k, v, (grid[0], grid[1]), text, radius, scale, pooled)


@_disc_attention.register_kernel("cuda")
def _on_cuda(
    q: Tensor, k: Tensor, v: Tensor, grid: list[int], text: int, radius: int, scale: float, pooled: int
) -> tuple[Tensor, Tensor]:
    size = grid[0], grid[1]
    if q.dtype == torch.float64:
        return disc_attention_tiled(q, k, v, size, text, radius, scale, pooled)
    if not_supported_by_hopper(q, k, v, size, text):
        return launch(q, k, v, size, text, radius, scale, pooled)
    return launch_hopper(q, k, v, size, text, radius, scale, pooled)


@_disc_attention.register_fake
def _shapes(
    q: Tensor, k: Tensor, v: Tensor, grid: list[int], text: int, radius: int, scale: float, pooled: int
) -> tuple[Tensor, Tensor]:
    batch, n, heads, _ = q.shape
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty((batch, heads, n), dtype=wide)


def _save(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, grid, text, radius, scale, pooled = inputs
    ctx.save_for_backward(q, k, v)
    ctx.layer = ((grid[0], grid[1]), text, radius, scale, pooled)  # type: ignore[attr-defined]  # a context takes any attribute


def _backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
    q, k, v = ctx.saved_tensors
    grid, text, radius, scale, pooled = ctx.layer
    found = disc_attention_backward(q, k, v, grid, text, radius, scale, pooled, grad_out, grad_lse)
    return (*found, None, None, None, None, None)


torch.library.register_autograd("flashrib::disc_attention", _backward, setup_context=_save)


def disc_attention_op(
    q: Tensor, k: Tensor, v: Tensor, grid: Side, text: int, radius: int, scale: float, pooled: int
) -> tuple[Tensor, Tensor]:
    """See `flashrib.model.attention.disc.disc_attention`."""
    out, lse = torch.ops.flashrib.disc_attention(q, k, v, list(grid), text, radius, scale, pooled)
    return out, lse


def disc_attention_triton(
    q: Tensor, k: Tensor, v: Tensor, grid: Side, text: int, radius: int, scale: float, pooled: int
) -> tuple[Tensor, Tensor]:
    """The kernel itself, without gradients: on a CUDA GPU, or on the CPU through Triton's interpreter."""
    return launch(q, k, v, grid, text, radius, scale, pooled)
