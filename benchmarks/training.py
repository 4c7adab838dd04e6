"""Training steps on one CUDA GPU, forward and backward: the official data flow, a dense position bias, and ours, side by side in one run.

    python benchmarks/training.py [--presets sst-light sst-plus] [--patches 96] [--rivals official dense]
        [--precisions fp32 tf32 bf16] [--fast] [--jobs 6] [--profile]

* official: the data flow of `official_flow.py`, whose q, k and v are rounded to bfloat16 as in the official code, in float32 with PyTorch's
  defaults (convolutions in TF32) and under bf16 autocast, with the faster of PyTorch's fused attention kernels (cuDNN, flash), plain
  and channels-last; then the fastest of these compiled. Both also as CUDA graphs, which the official code does not have.
* dense bias: the same network with a relative position bias, (heads, N, N) added to the scores, every window cut to at most 32: what SST is
  compared with in its paper. Ours with these windows beside it.
* flash-attn: the official flow through that package, 2, 3 or 4, where one is installed.
* ours: bf16 autocast and float32 (TF32 products), compiled layer by layer, as a CUDA graph, as `flashrib train` does it.

Milliseconds are medians after warm-up; memory is the peak of PyTorch's allocator in an eager or compiled step (no graph) above what was in
use before the network came to the GPU, weights and gradients included. The loss is L1 against a random target.
"""

import argparse
import contextlib
import dataclasses
import gc
import importlib.metadata
import io
import multiprocessing
import statistics
import time
import types
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from official_flow import official_flow
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flashrib.model import build_model, preset
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.attention.window.geometry import merge, pad_and_roll, split_heads
from flashrib.model.layers import WindowAttention
from flashrib.model.training.steps import GraphedStep, compile_layers

PRECISIONS = ("fp32", "tf32", "bf16")
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def dense_bias(self: WindowAttention, x: Tensor) -> Tensor:
    """`WindowAttention.forward` with a relative position bias, gathered from its table and added to the scores."""
    config = self.config
    qkv = F.conv2d(x, *self.scaled_qkv()).permute(0, 2, 3, 1)
    q, k, v = (
        split_heads(pad_and_roll(qkv, config.window, (0, 0)), config.window, config.heads).flatten(1, 3).flatten(3, 4)
    )
    bias = self.table[:, self.index].view(1, config.heads, *self.index.shape)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype).expand(q.shape[0], -1, -1, -1), scale=1.0)
    out = merge(out, config.window, (0, 0), (x.shape[2], x.shape[3])).permute(0, 3, 1, 2)
    y: Tensor = self.to_out(out if self.gate is None else out * self.gate(x))
    return y


def with_dense_bias(network: nn.Module) -> nn.Module:
    """Give every attention a table of relative positions in place of RIB."""
    official_flow(network)
    for module in network.modules():
        if isinstance(module, WindowAttention):
            height, width = module.config.window
            y, x = (side.flatten() for side in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
            index = (y[:, None] - y + height - 1) * (2 * width - 1) + x[:, None] - x + width - 1
            module.register_buffer("index", index, persistent=False)
            module.table = nn.Parameter(torch.zeros(module.config.heads, (2 * height - 1) * (2 * width - 1)))
            module.forward = types.MethodType(dense_bias, module)
    return network


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to do a step: precision ("fp32", "tf32" or "bf16"), backend of PyTorch's attention, memory layout, compiled or not."""

    precision: str
    backend: str = ""
    layout: str = "last"
    compiled: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.precision, self.backend, self.layout, "compiled" if self.compiled else "")))


def milliseconds(run: Callable[[], Any], budget_ms: float = 600.0) -> float:
    """Median time of `run` after two runs that do not count: 3 to 15 runs, as many as fit the budget."""
    times: list[float] = []
    run()
    run()
    while len(times) < 3 or (len(times) < 15 and sum(times) < budget_ms):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


def free() -> int:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


@dataclasses.dataclass
class Result:
    """Milliseconds of a step, the same as a CUDA graph, peak GiB of a step."""

    plain: float
    graph: float
    memory: float


def measure(
    make: Callable[[], nn.Module], case: Case, args: argparse.Namespace, patch: int, profile: bool = False
) -> Result:
    before = free()
    network = make().cuda().train()
    network.to(memory_format=torch.channels_last if case.layout == "last" else torch.contiguous_format)
    if case.compiled:
        compile_layers(network)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if case.precision == "tf32" else "ieee"
    low = torch.rand(args.batch, 3, patch, patch, device="cuda")
    high = torch.rand(args.batch, 3, args.scale * patch, args.scale * patch, device="cuda")
    if case.layout == "last":
        low, high = (x.to(memory_format=torch.channels_last) for x in (low, high))

    def loss(x: Tensor, wanted: Tensor) -> Tensor:
        autocast = torch.autocast("cuda", torch.bfloat16, enabled=case.precision == "bf16", cache_enabled=False)
        with sdpa_kernel(BACKENDS[case.backend] if case.backend else list(BACKENDS.values())), autocast:
            out = network(x)
        return F.l1_loss(out.float(), wanted)

    def step() -> None:
        for parameter in network.parameters():
            parameter.grad = None
        loss(low, high).backward()

    step()
    free()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    memory = (torch.cuda.max_memory_allocated() - before) / 2**30
    plain = milliseconds(step)
    graphed = GraphedStep(network, loss, (low, high))
    graph = milliseconds(graphed.replay)
    if profile:
        print("  " + kernels(graphed.replay), flush=True)
    return Result(plain, graph, memory)


def kernels(run: Callable[[], Any], count: int = 24) -> str:
    """Milliseconds of the kernels that take longest in one run."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    times: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        times[event.key[:60]] += event.self_device_time_total / 1e3
    ranked = sorted(times.items(), key=lambda item: -item[1])[:count]
    return f"sum {sum(times.values()):.1f} ms: " + "; ".join(f"{name} {ms:.2f}" for name, ms in ranked)


def attempt(
    name: str, make: Callable[[], nn.Module], case: Case, args: argparse.Namespace, patch: int, profile: bool = False
) -> Result:
    started = time.monotonic()
    try:
        result = measure(make, case, args, patch, profile)
    except Exception as error:  # a rival's package refuses shapes and versions in ways of its own
        torch._dynamo.reset()
        print(f"| {name} | {case} | {type(error).__name__}: {' '.join(str(error).split())[:300]} | | |", flush=True)
        free()
        return Result(float("inf"), float("inf"), float("inf"))
    torch._dynamo.reset()
    took = time.monotonic() - started
    print(
        f"| {name} | {case} | {result.plain:.1f} | {result.graph:.1f} | {result.memory:.2f} | ({took:.0f} s)",
        flush=True,
    )
    return result


Maker = Callable[[], nn.Module]


def cases(name: str, args: argparse.Namespace) -> list[tuple[str, Maker, Case]]:
    """What is measured of a preset, but the compiled official step, whose mode the eager ones decide."""

    def official(package: bool = False) -> nn.Module:
        return official_flow(build_model(name, args.scale), torch.bfloat16, package)

    config = preset(name, args.scale)
    small = dataclasses.replace(config, windows=tuple((min(h, 32), min(w, 32)) for h, w in config.windows))
    ours = partial(build_model, name, args.scale)
    found: list[tuple[str, Maker, Case]] = []
    if "official" in args.rivals:
        for precision in ("bf16",) if args.fast else ("fp32", "bf16"):
            for backend in ("cudnn", "flash"):
                for layout in ("last",) if args.fast else ("plain", "last"):
                    found.append(("official", official, Case(precision, backend, layout)))
        if flash_attn() != "not installed":
            by_package = partial(official, package=True)
            found += [("official, flash-attn", by_package, Case("bf16", compiled=c)) for c in (False, True)]
    if "dense" in args.rivals:
        made = partial(network_from_config, small)
        found.append(
            ("dense bias, windows <= 32", lambda: with_dense_bias(made()), Case("bf16", "efficient", compiled=True))
        )
        found.append(("ours, windows <= 32", made, Case("bf16", compiled=True)))
    found.append(("ours", ours, Case("bf16", compiled=True)))
    if not args.fast:
        more = (Case("bf16"), Case("tf32", compiled=True), Case("fp32", compiled=True))
        found += [("ours", ours, case) for case in more]
    return [row for row in found if row[2].precision in args.precisions]


def warm(job: tuple[str, str, argparse.Namespace]) -> None:
    """Compile what is compiled of a preset into the caches, in a process of its own: "ours" or "official"."""
    name, which, args = job
    with contextlib.redirect_stdout(io.StringIO()):
        if which == "ours":
            attempt("", partial(build_model, name, args.scale), Case("bf16", compiled=True), args, args.patches[0])
        else:
            case = Case("bf16", which, compiled=True)
            attempt(
                "", lambda: official_flow(build_model(name, args.scale), torch.bfloat16), case, args, args.patches[0]
            )


def compare(name: str, patch: int, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    print(
        f"\n{name}, batch {args.batch}, patch {patch}, x{args.scale}\n\n| network | how | ms | CUDA graph, ms | GiB |",
        flush=True,
    )
    measured = []
    for title, make, case in cases(name, args):
        result = attempt(title, make, case, args, patch, args.profile and title == "ours" and case.compiled)
        measured.append((title, case, result, make))
    eager = {case: (result, make) for title, case, result, make in measured if title == "official"}
    if not eager or "bf16" not in args.precisions:
        return
    best = min(eager, key=lambda case: eager[case][0].plain)
    rival = eager[best][0]
    compiled = attempt("official", eager[best][1], dataclasses.replace(best, compiled=True), args, patch)
    own = next(result for title, case, result, _ in measured if title == "ours" and case == Case("bf16", compiled=True))
    print(
        f"\n{name}: {rival.plain / own.graph:.2f}x the official eager step ({best}), {rival.graph / own.graph:.2f}x its CUDA graph,"
        f" {compiled.plain / own.graph:.2f}x compiled, {compiled.graph / own.graph:.2f}x compiled as a CUDA graph;"
        f" memory {own.memory / rival.memory:.0%} of eager, {own.memory / compiled.memory:.0%} of compiled",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--presets", nargs="+", default=["sst-light", "sst-plus"])
    parser.add_argument("--patches", nargs="+", type=int, default=[96])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--rivals", nargs="*", default=["official", "dense"], choices=("official", "dense"))
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--fast", action="store_true", help="bf16 and channels-last maps only")
    parser.add_argument("--jobs", type=int, default=0, help="processes that compile beforehand")
    parser.add_argument("--profile", action="store_true", help="milliseconds by kernel of our compiled step")
    args = parser.parse_args()
    if "bf16" not in args.precisions and (args.fast or args.jobs):
        parser.error("--fast and --jobs are about bf16: leave them out, or add bf16 to --precisions")
    if args.jobs:
        kinds = ["ours", *(("flash", "cudnn") if "official" in args.rivals else ())]
        with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
            pool.map(warm, [(name, kind, args) for name in args.presets for kind in kinds], chunksize=1)
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, flash-attn: {flash_attn()}")
    for name in args.presets:
        for patch in args.patches:
            compare(name, patch, args)


def flash_attn() -> str:
    """Version of the package, or of its successor."""
    for name in ("flash-attn", "flash-attn-4"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "not installed"


if __name__ == "__main__":
    main()
