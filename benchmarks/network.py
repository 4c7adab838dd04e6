"""Whole networks on one CUDA GPU: the official data flow in PyTorch and ours, side by side in one run.

    python benchmarks/network.py [--presets sst-light sst-plus ...] [--sizes 180x320 540x960] [--dtype fp16|bf16]
        [--compile sst-light ...] [--profile] [--jobs 8]

The rival (`official_flow.py`) gets the best of what its users can set, found on the first size one choice after the other, in CUDA
graphs: the backend of scaled_dot_product_attention (cuDNN or flash), channels-last weights, fp16 or bf16 autocast or float32 with TF32
(q, k and v rounded to bfloat16, as the official code does). `--compile` names presets for which torch.compile'd rivals run too. Ours is
`flashrib.model.gpu` in a CUDA graph. Times are medians of runs after warm-up, on random pictures, with cuDNN's search for the fastest
algorithm on; memory is the peak of PyTorch's allocator in an eager run above what was in use before the network came to the GPU.
The error is that of ours against the network in float32 (no TF32), as a ratio of RMS values, on the first size.

Floor: the largest of exponentials / 3.96e12 per second (ceiling of the special-function units), matrix products / 790 TFLOP/s and bytes /
4.3 TB/s (both measured on the same kind of machine), where bytes are what the fused passes read and write.
"""

import argparse
import gc
import multiprocessing
import statistics
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from official_flow import official_flow
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flashrib.model import PRESETS, build_model
from flashrib.model.architectures.esc.deploy import ConvLayer
from flashrib.model.architectures.esc.gpu import Mixing
from flashrib.model.config import NetworkConfig
from flashrib.model.fold import fold
from flashrib.model.gpu import gpu_network
from flashrib.model.gpu.layers import Convolution, WindowAttention
from flashrib.model.gpu.maps import Maps
from flashrib.model.gpu.passes import Matmul, Narrow, Wide

NAMES = tuple(name for name in PRESETS if name != "sst-real")  # which takes noise as well
EXPONENTIALS, FLOPS, BYTES = 3.96e12, 790e12, 4.3e12  # per second
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}

OURS = {
    "window_attention": "attention",
    "chain_kernel": "fused passes",
    "wide_kernel": "fused passes",
    "fork_kernel": "fused passes",
    "mix_kernel": "large convolutions",
    "depthwise_kernel": "depthwise",
    "gated_kernel": "depthwise",
}  # our kernels' names hold these; those of the rest are few

Run = Callable[[Tensor], Tensor]
Mode = dict[str, str]


def milliseconds(run: Callable[[], Any], budget_ms: float = 700.0) -> float:
    """Median time of `run` after one run that does not count: 2 to 15 runs, as many as fit the budget."""
    times: list[float] = []
    run()
    while len(times) < 2 or (len(times) < 15 and sum(times) < budget_ms):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    return statistics.median(times)


def captured(run: Run, picture: Tensor) -> Callable[[], Any]:
    """`run` as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run(picture)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(picture)
    return graph.replay


def allocated() -> int:
    """Bytes of PyTorch's allocator in use, after what nobody refers to is freed."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()


def peak_gib(run: Run, picture: Tensor, before: int) -> float:
    """Peak of an eager run above `before`, what was in use when the network was not on the GPU yet."""
    allocated()
    torch.cuda.reset_peak_memory_stats()
    run(picture)
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def float32_as(precision: str) -> None:
    """How products and convolutions of float32 are computed: "ieee" or "tf32"."""
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision


def rival(network: nn.Module, mode: Mode) -> Run:
    """The rival in one mode: "backend", "layout" (plain or last), "dtype"."""
    official: Any = official_flow(network, torch.bfloat16 if mode["dtype"] == "fp32" else None)
    official = official.to(memory_format=torch.channels_last if mode["layout"] == "last" else torch.contiguous_format)

    def run(picture: Tensor) -> Tensor:
        autocast = torch.autocast("cuda", DTYPES[mode["dtype"]], enabled=mode["dtype"] != "fp32")
        with sdpa_kernel(BACKENDS[mode["backend"]]), autocast:
            y: Tensor = official.upscale(picture)
        return y

    return run


def best_mode(network: nn.Module, picture: Tensor) -> tuple[Mode, dict[str, float]]:
    """The fastest mode of the rival in a CUDA graph, by one choice after the other, and the times of all that were tried."""
    choices = {"dtype": ("fp16", "bf16", "fp32"), "backend": tuple(BACKENDS), "layout": ("plain", "last")}
    mode = {name: options[0] for name, options in choices.items()}
    tried: dict[str, float] = {}
    for name in ("backend", "layout", "dtype"):
        times = {}
        for option in choices[name]:
            candidate = {**mode, name: option}
            label = " ".join(candidate[key] for key in ("dtype", "backend", "layout"))
            if label not in tried:
                try:
                    run = rival(network, candidate)
                    tried[label] = milliseconds(captured(run, picture), 300.0)
                except RuntimeError as error:  # a backend that does not take these widths
                    print(f"  {label}: {str(error).splitlines()[0][:100]}")
                    tried[label] = float("inf")
            times[option] = tried[label]
        mode[name] = min(times, key=times.__getitem__)
    return mode, tried


def bytes_of(maps: Any) -> int:
    """Bytes of the tensors in nested lists and tuples."""
    if isinstance(maps, Tensor):
        return maps.nbytes
    return sum(map(bytes_of, maps)) if isinstance(maps, list | tuple | Maps) else 0


def floors(ours: nn.Module, config: NetworkConfig, folded: nn.Module, picture: Tensor) -> dict[str, float]:
    """Least milliseconds for exponentials, matrix products and bytes."""
    pixels = picture.shape[-1] * picture.shape[-2]
    exponentials = products = moved = 0.0

    def count(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> None:
        nonlocal exponentials, products, moved
        moved += bytes_of(outputs)
        if isinstance(module, WindowAttention):
            heads, tokens, rank = module.pos_q.shape
            scores = float(inputs[0].shape[1] * inputs[0].shape[2] * heads * tokens)
            exponentials += scores
            products += 2 * scores * (2 * inputs[0].shape[-1] // (3 * heads) + rank)

    def read(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal moved
        moved += bytes_of(inputs)

    kinds = (Matmul, Narrow, Wide, Convolution, Mixing, WindowAttention)
    modules = [m for m in ours.modules() if isinstance(m, kinds)]
    hooks = [m.register_forward_hook(count) for m in modules] + [m.register_forward_pre_hook(read) for m in modules]
    ours(picture)
    for hook in hooks:
        hook.remove()
    for name, module in folded.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not name.endswith(
            ("squeeze", "expand")
        ):  # those: once a picture
            enlarged = config.scale**2 if name == "upsampler.final_conv" else 1
            products += 2.0 * module.weight.numel() * pixels * enlarged
        if isinstance(module, ConvLayer):
            products += 2.0 * module.pdim**2 * config.kernel_size**2 * pixels
    seconds = {"exponentials": exponentials / EXPONENTIALS, "products": products / FLOPS, "bytes": moved / BYTES}
    return {name: 1e3 * value for name, value in seconds.items()}


def by_kernel(replay: Callable[[], Any]) -> list[tuple[str, int, float]]:
    """Name, launches and milliseconds of every kernel in one run, the longest first."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        replay()
        torch.cuda.synchronize()
    found = [(event.key, event.count, event.self_device_time_total / 1e3) for event in profile.key_averages()]
    return sorted(found, key=lambda kernel: -kernel[2])


def kernel_classes(replay: Callable[[], Any]) -> dict[str, float]:
    """Milliseconds by class of kernel in one run."""
    classes: dict[str, float] = defaultdict(float)
    for key, _, time in by_kernel(replay):
        name = key.lower()
        kind = next((kind for part, kind in OURS.items() if part in name), None)
        if kind is None:
            convolution = any(k in name for k in ("fprop", "conv", "cudnn", "implicit"))
            product = any(k in name for k in ("gemm", "cutlass", "nvjet", "cublas"))
            kind = "convolutions (cuDNN)" if convolution else "products (cuBLAS)" if product else "others"
        classes[kind] += time
    return {k: v for k, v in sorted(classes.items(), key=lambda item: -item[1]) if v > 0}


def warm(job: tuple[str, int, str]) -> None:
    """Compile the kernels of a preset into Triton's cache, in a process of its own."""
    name, scale, dtype = job
    with torch.inference_mode():
        gpu_network(build_model(name, scale), DTYPES[dtype]).cuda()(torch.rand(1, 3, 180, 320, device="cuda"))
    torch.cuda.synchronize()


def compare(name: str, args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    network = build_model(name, args.scale)
    deployed = gpu_network(network, DTYPES[args.dtype])
    folded = fold(network)
    mode: Mode = {}
    graphed = False  # the rival is faster as a CUDA graph
    error = float("nan")
    for size in args.sizes:
        first = not mode
        height, width = map(int, size.split("x"))
        picture = torch.rand(1, 3, height, width, device="cuda")
        before = allocated()
        network.cuda()
        exact = None
        if first:
            float32_as("ieee")
            exact = network.upscale(picture)
            float32_as("tf32")
            mode, tried = best_mode(network, picture)
            print(f"{name}, rival's modes in CUDA graphs, ms: " + ", ".join(f"{k} {v:.1f}" for k, v in tried.items()))
        run = rival(network, mode)
        times = {}
        if first or not graphed:
            times["eager"] = milliseconds(partial(run, picture))
        if first or graphed:
            times["graph"] = milliseconds(captured(run, picture))
        graphed = graphed if not first else times["graph"] < times["eager"]
        memory = peak_gib(run, picture, before)
        if name in args.compile:
            compiled = torch.compile(run)
            times["compiled"] = milliseconds(partial(compiled, picture))
            times["compiled graph"] = milliseconds(captured(compiled, picture))
            torch._dynamo.reset()
            del compiled
        plain = min(time for way, time in times.items() if "compiled" not in way)
        best_compiled = min((time for way, time in times.items() if "compiled" in way), default=None)
        del run  # and with it the last graph's memory
        network.cpu()
        before = allocated()

        ours = deployed.cuda()
        if exact is not None:
            found = ours(picture)
            error = ((found - exact).norm() / exact.norm()).item()
            del found, exact
        floor = floors(ours, network.config, folded, picture)
        eager = milliseconds(partial(ours, picture))
        our_memory = peak_gib(ours, picture, before)
        replay = captured(ours, picture)
        time = milliseconds(replay)
        by_rival = ", ".join(f"{k} {v:.1f}" for k, v in times.items())
        compiled_ratio = f" ({best_compiled / time:.2f}x compiled)" if best_compiled is not None else ""
        print(
            f"| {name} | {size} | {plain:.1f} ({' '.join(mode.values())}: {by_rival}) | {time:.2f} (eager {eager:.2f})"
            f" | {plain / time:.2f}x{compiled_ratio} | {memory:.2f} | {our_memory:.2f} | {our_memory / memory:.0%}"
            f" | {error:.1e} | {', '.join(f'{k} {v:.2f}' for k, v in floor.items())} | {max(floor.values()) / time:.0%} |",
            flush=True,
        )
        if args.profile:
            print("  " + ", ".join(f"{k} {v:.2f}" for k, v in kernel_classes(replay).items()), flush=True)
        del replay
        deployed.cpu()
        torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--presets", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--sizes", nargs="+", default=["180x320", "540x960"], help="rows x columns of the input")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--dtype", choices=("fp16", "bf16"), default="fp16")
    parser.add_argument(
        "--compile", nargs="*", default=[], help="presets whose rival is compiled with torch.compile too"
    )
    parser.add_argument("--profile", action="store_true", help="milliseconds by class of kernel")
    parser.add_argument("--jobs", type=int, default=8, help="processes that compile our kernels beforehand; 0: none")
    args = parser.parse_args()
    if args.jobs:
        with multiprocessing.get_context("spawn").Pool(min(args.jobs, len(args.presets))) as pool:
            pool.map(warm, [(name, args.scale, args.dtype) for name in args.presets], chunksize=1)
    torch.backends.cudnn.benchmark = True
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, x{args.scale}, ours in {args.dtype}")
    print(
        "| network | input | rival, ms | ours, ms | faster | rival, GiB | ours, GiB | ours/rival | error | floor, ms | floor/ours |"
    )
    with torch.inference_mode():
        for name in args.presets:
            compare(name, args)


if __name__ == "__main__":
    main()
