"""The fused attention kernel on a GPU, beside what the official code does there: `python benchmarks/attention_kernel.py [--tune]`.

Three tables, medians of one run, fp16, fresh random inputs, outputs poisoned with NaN and compared with float32:

1. kernel: cuDNN's fused attention (PyTorch's scaled_dot_product_attention, the faster of cuDNN and flash) gets q, k and v ready made:
   cut into windows, codes concatenated, v widened. Ours starts from the qkv map.
2. stage: from the qkv map to the output map; the official way completes, cuts, concatenates and widens before, and puts back after.
3. `--tune`: candidates of block sizes for every layer; the best go into model/attention/window/tuning.py by hand.

Layers: the windows of the presets with their head widths and ranks; "ours" are these as the folded network has them, by exact folding: a
head of 30 channels has 32; a rank above 16 becomes 32 channels with one code of the keys for all heads.
"""

import argparse
import dataclasses
import itertools
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from triton.testing import do_bench_cudagraph

from flashrib.model.attention.window import op as fused
from flashrib.model.attention.window import window_attention
from flashrib.model.attention.window.geometry import merge, pad_and_roll, split_heads
from flashrib.model.attention.window.tuning import Blocks

EXPONENTIALS_PER_SECOND = (
    3.96e12  # ex2.approx with the multiply-add before it, measured on an H200 (docs/notes/attention.md)
)


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a preset: heads, channels of a head and rank, official and as folded, and the side of the window."""

    heads: int
    official: tuple[int, int]
    folded: tuple[int, int]
    side: int

    def __str__(self) -> str:
        return f"{self.heads} heads, D {self.official[0]}, R {self.official[1]}, window {self.side}"


LIGHT, SST, LARGE = (3, (16, 16), (16, 16)), (6, (30, 18), (32, 32)), (6, (32, 16), (32, 16))
LIGHT_LAST, SST_LAST, LARGE_LAST = (3, (16, 24), (16, 32)), (6, (30, 34), (32, 32)), (6, (32, 32), (32, 32))
LAYERS = [
    *(Layer(*LIGHT, side) for side in (8, 16, 32)),
    *(Layer(*LIGHT_LAST, side) for side in (32, 48, 64, 96)),
    *(Layer(*SST, side) for side in (16, 32, 48)),
    *(Layer(*SST_LAST, side) for side in (32, 48, 64, 96)),
    *(Layer(*LARGE, side) for side in (16, 32, 48)),
    *(Layer(*LARGE_LAST, side) for side in (32, 48, 64, 96)),
]

CANDIDATES = [
    Blocks(64, 64, 4, 3), Blocks(64, 64, 4, 2), Blocks(64, 64, 4, 3, 80), Blocks(64, 64, 4, 3, 96),
    Blocks(128, 64, 8, 3), Blocks(128, 64, 8, 3, 80), Blocks(128, 64, 8, 3, 72), Blocks(128, 64, 8, 4, 80), Blocks(128, 64, 8, 2, 80),
    Blocks(128, 32, 4, 3), Blocks(128, 32, 4, 3, 96), Blocks(128, 32, 4, 2), Blocks(128, 32, 4, 4), Blocks(64, 32, 4, 3),
    Blocks(128, 32, 8, 3),     Blocks(64, 128, 4, 2), Blocks(128, 64, 4, 3),
]  # fmt: skip


def inputs(layer: Layer, size: tuple[int, int], folded: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Random qkv map and codes with logits of about the spread that trained networks have."""
    head_dim, rank = layer.folded if folded else layer.official
    tokens = layer.side**2
    qkv = torch.randn(1, *size, 3 * layer.heads * head_dim, device="cuda")
    qkv[..., : layer.heads * head_dim] *= 1.5 * head_dim**-0.5
    shared = folded and layer.official[1] > 16
    pos_q, pos_k = (
        torch.randn(heads, tokens, rank, device="cuda") for heads in (layer.heads, 1 if shared else layer.heads)
    )
    return qkv.half(), (pos_q * rank**-0.5).half(), pos_k.half()


def median(run: Callable[[], Any], repeat_ms: int = 20) -> float:
    """Median milliseconds of `run` in a CUDA graph, so that launches from Python do not count, neither the rival's nor ours."""
    with torch.cuda.stream(torch.cuda.Stream()):
        result: float = do_bench_cudagraph(run, rep=repeat_ms, return_mode="median")
    return result


def backends(run: Callable[[], Any]) -> float:
    """Milliseconds of `run` with the faster of PyTorch's two fused backends."""
    found = []
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        with sdpa_kernel(backend):
            found.append(median(run))
    return min(found)


def official_stage(qkv: Tensor, pos_q: Tensor, pos_k: Tensor, side: int, heads: int) -> Tensor:
    """The official way from the qkv map on: complete, cut, concatenate, widen v, attention, put back."""
    q, k, v = split_heads(pad_and_roll(qkv, (side, side), (0, 0)), (side, side), heads).flatten(1, 3).flatten(3, 4)
    q = torch.cat([q, pos_q.expand(q.shape[0], -1, -1, -1)], dim=-1)
    k = torch.cat([k, pos_k.expand(k.shape[0], -1, -1, -1)], dim=-1)
    wide = torch.cat([v, v.new_zeros(*v.shape[:-1], pos_q.shape[-1])], dim=-1)
    out = F.scaled_dot_product_attention(q, k, wide, scale=1.0)[..., : v.shape[-1]]
    return merge(out, (side, side), (0, 0), (qkv.shape[1], qkv.shape[2]))


def error(layer: Layer, size: tuple[int, int]) -> tuple[float, float]:
    """Relative error of ours and of PyTorch's fused attention in fp16 against float32, on the same folded inputs."""
    arrays = inputs(layer, size, folded=True)
    window = (layer.side, layer.side)
    exact = window_attention(*(x.float() for x in arrays), window, layer.heads, form="sdpa")
    torch.empty_like(exact, dtype=torch.float16).fill_(torch.nan)  # what the allocator hands to the kernel next
    ours = window_attention(*arrays, window, layer.heads, form="triton").float()
    theirs = window_attention(*arrays, window, layer.heads, form="sdpa").float()
    norm = exact.norm()
    return ((ours - exact).norm() / norm).item(), ((theirs - exact).norm() / norm).item()


def ours(layer: Layer, size: tuple[int, int]) -> Callable[[], Tensor]:
    arrays = inputs(layer, size, folded=True)
    return lambda: window_attention(*arrays, (layer.side, layer.side), layer.heads, form="triton")


def kernel_table(layers: list[Layer], size: tuple[int, int]) -> None:
    print(f"\nKernel alone, {size[0]}x{size[1]}; exponentials in 1e12 per second\n")
    print("| layer | best of cuDNN, flash, us | ours, us | ratio | ours, exp/s | of the ceiling | error | PyTorch's |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for layer in layers:
        windows, width = (size[0] // layer.side) * (size[1] // layer.side), sum(layer.official)
        q, k, v = (torch.randn(windows, layer.heads, layer.side**2, width, device="cuda").half() for _ in range(3))
        q *= width**-0.5
        rival = backends(lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v, scale=1.0))
        own = median(ours(layer, size))
        rate = layer.heads * size[0] * size[1] * layer.side**2 / own * 1e3
        mine, theirs = error(layer, size)
        print(
            f"| {layer} | {1e3 * rival:.0f} | {1e3 * own:.0f} | {rival / own:.2f} | {rate / 1e12:.2f} |"
            f" {rate / EXPONENTIALS_PER_SECOND:.0%} | {mine:.1e} | {theirs:.1e} |",
            flush=True,
        )


def stage_table(layers: list[Layer], size: tuple[int, int]) -> None:
    print(f"\nStage, from the qkv map to the output map, {size[0]}x{size[1]}\n")
    print("| layer | official, us | ours, us | ratio |")
    print("|---|---|---|---|", flush=True)
    for layer in layers:
        arrays = inputs(layer, size, folded=False)
        rival = backends(lambda a=arrays, layer=layer: official_stage(*a, layer.side, layer.heads))
        own = median(ours(layer, size))
        print(f"| {layer} | {1e3 * rival:.0f} | {1e3 * own:.0f} | {rival / own:.2f} |", flush=True)


def use(blocks: Blocks) -> None:
    """Make the operator take `blocks` for every layer."""
    fused.blocks_for = lambda *_: blocks


def compile_one(job: tuple[Layer, Blocks | None]) -> None:
    """Compile a layer into Triton's cache, in a process of its own; None: with the blocks of the table."""
    layer, blocks = job
    if blocks is not None:
        use(blocks)
    try:
        ours(layer, (layer.side, layer.side))()
    except (RuntimeError, triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError):
        return  # too much shared memory; the table leaves it out


def compile_all(jobs: list[tuple[Layer, Blocks | None]]) -> None:
    with multiprocessing.get_context("spawn").Pool() as pool:
        pool.map(compile_one, jobs, chunksize=2)


def tune(layers: list[Layer], size: tuple[int, int]) -> None:
    compile_all(list(itertools.product(layers, CANDIDATES)))
    for layer in layers:
        timed = sorted(measured(layer, size), key=lambda row: row[0])
        print(f"{layer}: " + ", ".join(f"{b} {1e3 * ms:.0f} us" for ms, b in timed[:4]), flush=True)


def measured(layer: Layer, size: tuple[int, int]) -> Iterator[tuple[float, Blocks]]:
    known = fused.blocks_for
    for blocks in CANDIDATES:
        use(blocks)
        try:
            yield median(ours(layer, size), 25), blocks
        except (RuntimeError, triton.runtime.errors.OutOfResources, triton.runtime.errors.PTXASError):
            continue
        finally:
            fused.blocks_for = known


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="time candidates of block sizes instead")
    parser.add_argument("--size", nargs=2, type=int, default=(384, 384), metavar=("H", "W"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("needs a CUDA GPU", file=sys.stderr)
        return 1
    size = (arguments.size[0], arguments.size[1])
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}")
    if arguments.tune:
        tune(LAYERS, size)
        return 0
    compile_all([(layer, None) for layer in LAYERS])
    kernel_table(LAYERS, size)
    stage_table(LAYERS, size)
    stage_table(LAYERS, (180, 320))
    return 0


if __name__ == "__main__":
    sys.exit(main())
