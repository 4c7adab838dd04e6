"""Blocks and steps of CLEAR at the size of FLUX.1-dev, random weights, bf16, on one CUDA GPU.

    python benchmarks/clear_block.py [--sides 1024 2048 4096] [--radius 8] [--down 0] [--step] [--parts 2]

Blocks: one double and one single block; "official" is the official data flow (our network in its training form, module by module, with
compiled flex_attention in raster order and its own projections for q, k and v), "dense" the same with PyTorch's attention of
everything, which is FLUX. Ours is the deployment form as a CUDA graph. `--step`: the whole transformer of 11.9 billion parameters,
ours. Attention's share is the time of the operator alone over that of the block. `--parts`: the step (2 + 4 blocks, for its weights) in
row bands on that many GPUs, through torchrun:
    torchrun --nproc-per-node 2 benchmarks/clear_block.py --parts 2
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from flashrib.model.architectures.clear_dit import network as training_form
from flashrib.model.architectures.clear_dit.bands import BandedClear
from flashrib.model.architectures.clear_dit.config import ClearConfig, preset
from flashrib.model.architectures.clear_dit.deploy import DeployedClear
from flashrib.model.architectures.clear_dit.fold import fold_onto
from flashrib.model.architectures.clear_dit.load import assign
from flashrib.model.architectures.clear_dit.network import ClearTransformer
from flashrib.model.architectures.clear_dit.step import DenoiseStep
from flashrib.model.attention.disc import disc_attention

TEXT = 512


def random_network(config: ClearConfig) -> ClearTransformer:
    """Weights of a spread that keeps activations of order 1."""
    with torch.device("meta"):
        result = ClearTransformer(config)
    generator = torch.Generator("cuda").manual_seed(0)
    for name, parameter in list(result.named_parameters()):
        value = torch.empty(parameter.shape, dtype=torch.bfloat16, device="cuda")
        if name.endswith(("norm_q.weight", "norm_k.weight", "norm_added_q.weight", "norm_added_k.weight")):
            value.fill_(1)
        else:
            value.normal_(0, 0.5 * parameter.shape[-1] ** -0.5, generator=generator)
        assign(result, name, value)
    return result.eval()


def inputs(config: ClearConfig, side: int) -> list[Tensor]:
    generator = torch.Generator("cuda").manual_seed(1)
    shapes = ((1, side, side, config.in_channels), (1, TEXT, config.joint_dim), (1, config.pooled_dim))
    tensors = [torch.randn(shape, generator=generator, device="cuda").bfloat16() for shape in shapes]
    return [*tensors, torch.full((1,), 0.75, device="cuda"), torch.full((1,), 3.5, device="cuda")]


def milliseconds(call: Callable[[], Any], repeats: int) -> float:
    """Median of single runs between events, after two that warm up."""
    times = []
    for _ in range(repeats + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return sorted(times[2:])[repeats // 2]


def measured(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Milliseconds, and peak memory in GB above what was allocated before."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    time = milliseconds(call, repeats)
    return time, (torch.cuda.max_memory_allocated() - before) / 1e9


@functools.cache
def flex_of(side: int, radius: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def seen(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        q, k = query - TEXT, key - TEXT
        down, across = q // side - k // side, q % side - k % side
        return (query < TEXT) | (key < TEXT) | (down * down + across * across < radius * radius)

    n = TEXT + side * side
    mask = create_block_mask(seen, None, None, n, n, device="cuda", _compile=True)
    compiled: Any = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=mask)


def official_attention(config: ClearConfig, q: Tensor, k: Tensor, v: Tensor, grid: tuple[int, int], *_: Any) -> Tensor:
    assert config.radius is not None
    heads_first = (x.transpose(1, 2) for x in (q, k, v))
    return flex_of(grid[0], config.radius)(*heads_first).transpose(1, 2)


def block_calls(network: Any, folded: DeployedClear, config: ClearConfig, side: int) -> dict[str, Callable[[], Any]]:
    """Calls of one block each, of the training form or, where `network` is None, of the deployment form."""
    generator = torch.Generator("cuda").manual_seed(2)
    x = torch.randn(1, side * side, config.dim, generator=generator, device="cuda").bfloat16()
    words = torch.randn(1, TEXT, config.dim, generator=generator, device="cuda").bfloat16()
    embedding = torch.randn(1, config.dim, generator=generator, device="cuda").bfloat16()
    both = torch.cat((words, x), 1)
    grid = (side, side)
    if network is not None:
        double, single = network.transformer_blocks[0], network.single_transformer_blocks[0]
        return {
            "double": lambda: double(x, words, embedding, grid),
            "single": lambda: single(both, embedding, grid, TEXT),
        }
    from flashrib.model.architectures.clear_dit.deploy import Where

    where = Where(grid, TEXT, folded.rotation(grid, TEXT, x.device), TEXT + side * side)
    return {
        "double": lambda: folded.double_blocks[0](x, words, embedding, where),
        "single": lambda: folded.single_blocks[0](both, embedding, where),
    }


def recorded(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def attention_ms(side: int, radius: int, config: ClearConfig) -> float:
    n = TEXT + side * side
    q, k, v = (torch.randn(1, n, config.heads, config.head_dim, device="cuda").bfloat16() for _ in range(3))
    call = recorded(lambda: disc_attention(q, k, v, (side, side), TEXT, radius))
    return milliseconds(call, 5)


def blocks(arguments: argparse.Namespace) -> None:
    """Print the table of single blocks."""
    print(
        "| picture | r | block | official, ms (GB) | dense, ms (GB) | ours, ms (GB) | ours/official | attention, ms (share of ours) |"
    )
    print("|" + "---|" * 8)
    original = training_form.attention_of
    for radius in arguments.radius:
        config = dataclasses.replace(preset("clear-local-8", 1), radius=radius, layers=1, single_layers=1)
        network = random_network(config)
        folded = fold_onto(network, torch.bfloat16, torch.device("cuda"))
        for pixels in arguments.sides:
            side, repeats = pixels // 16, 3 if pixels > 2048 else 7
            torch._dynamo.reset()
            flex_of.cache_clear()
            training_form.attention_of = official_attention
            official = {
                name: measured(call, repeats) for name, call in block_calls(network, folded, config, side).items()
            }
            full = dataclasses.replace(config, radius=None)
            training_form.attention_of = lambda _, *rest: original(full, *rest)  # noqa: B023  # called before the next round
            dense = {name: measured(call, repeats) for name, call in block_calls(network, folded, config, side).items()}
            training_form.attention_of = original
            alone = attention_ms(side, radius, config)
            for name, call in block_calls(None, folded, config, side).items():
                eager, memory = measured(call, 2)
                ours = milliseconds(recorded(call), repeats)
                print(
                    f"| {pixels}^2 | {radius} | {name} | {official[name][0]:.2f} ({official[name][1]:.1f}) | {dense[name][0]:.2f}"
                    f" ({dense[name][1]:.1f}) | {ours:.2f} ({memory:.1f}) | {ours / official[name][0]:.0%} | {alone:.2f}"
                    f" ({alone / ours:.0%}) |",
                    flush=True,
                )
                del eager
            torch.cuda.empty_cache()


def steps(arguments: argparse.Namespace) -> None:
    """Print the time of the whole transformer."""
    print("| picture | r | pooled | step, ms | GB | attention, ms (share) |\n|---|---|---|---|---|---|")
    config = preset("clear-local-8-down-4" if arguments.down else "clear-local-8", 1)
    folded = fold_onto(random_network(config), torch.bfloat16, torch.device("cuda"), consume=True)
    torch.cuda.empty_cache()
    print(f"weights: {torch.cuda.memory_allocated() / 1e9:.1f} GB", flush=True)
    step = DenoiseStep(folded, config, graphs=0)
    for pixels in arguments.sides:
        side = pixels // 16
        given = inputs(config, side)
        torch.cuda.reset_peak_memory_stats()
        time = milliseconds(lambda: step(*given), 3)  # noqa: B023  # called before the next round
        layers = config.layers + config.single_layers
        alone = layers * attention_ms(side, 8, config)
        peak = torch.cuda.max_memory_allocated() / 1e9
        print(
            f"| {pixels}^2 | 8 | {bool(config.down)} | {time:.0f} | {peak:.1f} | {alone:.0f} ({alone / time:.0%}) |",
            flush=True,
        )


def bands(arguments: argparse.Namespace) -> None:
    """Print the time of some blocks on one GPU and in bands on several, and the difference of the results."""
    dist.init_process_group("nccl")
    rank = dist.get_rank()
    torch.cuda.set_device(rank)
    for radius in arguments.radius:
        config = dataclasses.replace(preset("clear-local-8", 1), radius=radius, layers=2, single_layers=4)
        folded = fold_onto(random_network(config), torch.bfloat16, torch.device("cuda"), consume=True)
        banded = BandedClear(folded)
        for pixels in arguments.sides:
            given = inputs(config, pixels // 16)
            with torch.inference_mode():
                whole, parts = folded(*given).float(), banded(*given).float()
                error = ((whole - parts).square().mean().sqrt() / whole.square().mean().sqrt()).item()
                alone = milliseconds(lambda: folded(*given), 5)  # noqa: B023  # called before the next round
                together = milliseconds(lambda: banded(*given), 5)  # noqa: B023  # called before the next round
            if rank == 0:
                print(
                    f"{pixels}^2, r = {radius}, 2 double and 4 single blocks: 1 GPU {alone:.1f} ms, {arguments.parts} GPUs"
                    f" {together:.1f} ms, {alone / together:.2f} times; relative RMS {error:.1e}",
                    flush=True,
                )
            dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 2048, 4096], help="of the picture in pixels")
    parser.add_argument("--radius", type=int, nargs="+", default=[8])
    parser.add_argument("--down", type=int, choices=(0, 4), default=0, help="of the whole step")
    parser.add_argument("--step", action="store_true", help="the whole transformer")
    parser.add_argument("--parts", type=int, default=0, help="in row bands, one process for each GPU")
    arguments = parser.parse_args()
    if arguments.parts:
        bands(arguments)
        return
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    with torch.inference_mode():
        (steps if arguments.step else blocks)(arguments)


if __name__ == "__main__":
    main()
