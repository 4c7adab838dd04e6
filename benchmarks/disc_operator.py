"""`disc_attention` for `sparse_attention.py`: against cuDNN and flash attention of everything, and against flex_attention with the same
mask,
in raster order (the official way) and with the picture's tokens sorted into tiles of 8 x 16.

24 heads of 128 channels, 512 text tokens, one picture, as FLUX has them. Ours and flex_attention see exactly the same pairs; dense
attention sees all. Blocks, masks and schedules are made beforehand, as every layer of a network shares them. The check compares ours
with flex_attention.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from flashrib.model.attention.disc import disc_attention
from flashrib.model.attention.disc.blocks import needed_pairs
from flashrib.model.attention.disc.op import launch
from flashrib.model.attention.disc.tuning import Blocks

COLUMNS = ("picture", "r", "pooled", "needed GFLOP", "max. difference to flex")
DENSE = ("cuDNN", "flash")
HEADS, HEAD_DIM, TEXT = 24, 128, 512
TUNE = [
    Blocks((8, 8), (8, 8), 4, 2),
    Blocks((8, 8), (8, 8), 4, 3),
    Blocks((8, 16), (8, 8), 8, 3),
    Blocks((8, 16), (8, 16), 8, 2),
    Blocks((8, 8), (4, 8), 4, 3, 168),
]


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table."""

    title: tuple[str, ...]
    ours: Callable[[], Tensor]
    rivals: dict[str, Callable[[], Tensor]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what chooses the rows."""
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096], help="of the picture in pixels")
    parser.add_argument("--radius", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--down", type=int, nargs="+", choices=(0, 4), default=[0])
    parser.add_argument("--without", nargs="+", choices=("flash", "cuDNN", "flex", "flex 2-D", "portable"), default=[])
    parser.add_argument("--tune", action="store_true", help="also the portable kernel with all tiles and blocks")


def flex(q: Tensor, k: Tensor, v: Tensor, side: int, radius: int, sort: bool) -> Callable[[], Tensor]:
    """flex_attention with CLEAR's mask, (B, h, n, D); with `sort` the tokens of the picture come tile by tile."""
    token = torch.arange(side * side, device="cuda", dtype=torch.int32)
    row, column = token // side, token % side
    if sort:
        order = (row // 8 * 8) * side + column // 16 * 16 * 8 + (row % 8) * 16 + column % 16
        back = torch.argsort(order)
        row, column = row[back].contiguous(), column[back].contiguous()
        q, k, v = (torch.cat((x[:, :, :TEXT], x[:, :, TEXT:][:, :, back]), 2) for x in (q, k, v))
    still = torch.zeros(TEXT, device="cuda", dtype=torch.int32)
    row, column = torch.cat((still, row)), torch.cat((still, column))

    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        down, across = row[query] - row[key], column[query] - column[key]
        return (query < TEXT) | (key < TEXT) | (down * down + across * across < radius * radius)

    n = TEXT + side * side
    mask = create_block_mask(seen, None, None, n, n, device="cuda", _compile=True)
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(q, k, v, block_mask=mask)


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    """Yield the rows, one at a time in memory."""
    for pixels in arguments.sides:
        for down in arguments.down:
            for radius in arguments.radius:
                yield case(pixels, radius, down, arguments)


def case(pixels: int, radius: int, down: int, arguments: argparse.Namespace) -> Case:
    """Make one row."""
    side = pixels // 16
    pooled = (side // down) ** 2 if down else 0
    n = TEXT + side * side
    generator = torch.Generator("cuda").manual_seed(0)
    q, k, v = (
        torch.randn(1, size, HEADS, HEAD_DIM, generator=generator, device="cuda").bfloat16()
        for size in (n, n + pooled, n + pooled)
    )
    facts = ((side, side), TEXT, radius, HEAD_DIM**-0.5, pooled)
    hq, hk, hv = (x[:, :n].transpose(1, 2).contiguous() for x in (q, k, v))

    def dense(backend: SDPBackend) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(hq, hk, hv)

        return call

    rivals: dict[str, Callable[[], Tensor]] = {}
    for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash", SDPBackend.FLASH_ATTENTION)):
        if name not in arguments.without and not pooled:
            rivals[name] = dense(backend)
    difference = ""
    if not pooled:
        for name in ("flex", "flex 2-D"):
            if name not in arguments.without:
                torch._dynamo.reset()
                rivals[name] = flex(hq, hk, hv, side, radius, name != "flex")
        if "flex" in rivals:
            ours = disc_attention(q, k, v, *facts)[0]
            difference = f"{(rivals['flex']().transpose(1, 2) - ours).abs().max().item():.4f}"
    if "portable" not in arguments.without:
        rivals["portable kernel"] = lambda: launch(q, k, v, *facts)[0]
    for blocks in TUNE if arguments.tune else ():
        rivals[f"{blocks.tile} {blocks.keys} {blocks.warps} {blocks.stages} {blocks.registers}"] = (
            lambda blocks=blocks: launch(q, k, v, *facts, blocks=blocks)[0]
        )
    needed = 4 * needed_pairs((side, side), TEXT, radius, pooled) * HEADS * HEAD_DIM / 1e9
    title = (f"{pixels}^2", str(radius), str(pooled), f"{needed:.1f}", difference)
    return Case(title, lambda: disc_attention(q, k, v, *facts)[0], rivals)
