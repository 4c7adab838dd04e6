"""ONNX Runtime on one NVIDIA GPU beside our GPU session in PyTorch: time, memory and error, with the custom operators and without.

    python -m benchmarks.onnxruntime_gpu [--presets sst-light esc-rib ...] [--sizes 180x320 540x960] [--profile]
        [--forms passes attention plain ...] [--variants skip gelu skip+gelu+gate ...] [--settings usual workspace shrink ...]

Needs onnxruntime-gpu and PyTorch for CUDA. Networks are x4 with random weights, fp16. Forms of a network in ONNX Runtime, all with buffers
on the GPU (IOBinding) and a CUDA graph:

    passes      attention and the fused passes by the library (built from the checkpoint)
    attention   attention alone by the library, the rest ONNX Runtime's (built from the ONNX file of one size)
    plain       the ONNX file of one size, ONNX Runtime's own kernels

`--variants` adds forms of the plain file that `onnxruntime_rewrites.py` makes, `plain:skip+gelu` and the like. `--settings` runs each form
with several settings of memory:

    usual       no memory patterns, an arena that grows by what is asked for: as flashrib's session
    workspace   the same, and workspaces of cuDNN of 32 MB at most
    release     as usual, and no buffer is kept for the next map of its size: as flashrib's session does for esc-rib
    shrink      memory patterns, and an arena that is shrunk after the first run, which reserved memory without them
    grow        an arena that grows by powers of two, ONNX Runtime's own choice

A time is the median of five means over runs without waiting between them; memory is what the GPU has less of while the session is there,
buffers, libraries' workspaces and all; of PyTorch it is the peak of the allocator above what the network holds. The error is relative RMS
to the network in float32 on the first size.
"""

import argparse
import dataclasses
import gc
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from benchmarks.onnxruntime_rewrites import REWRITES, rewritten
from flashrib.export.onnxruntime.graph import with_library
from flashrib.export.onnxruntime.library import build_library, table_of
from flashrib.export.onnxruntime.trace import traced_with_passes
from flashrib.export.options import ExportOptions
from flashrib.export.to_onnx import export_graph
from flashrib.model import build_model
from flashrib.model.gpu import gpu_network
from flashrib.model.network import Network
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.torch_plain import full_float32

SCALE = 4
Size = tuple[int, int]
Form = tuple[Path, Path | None]
"""An ONNX file, and its library."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a session's memory.

    Attributes:
        options: of the provider.
        patterns: whether memory patterns are used.
        reuse: whether the buffer of a map is kept for the next one of its size.
        shrink: whether the arena is shrunk after the first run.
    """

    options: dict[str, str] = dataclasses.field(default_factory=dict)
    patterns: bool = False
    reuse: bool = True
    shrink: bool = False


SETTINGS = {
    "usual": Settings(),
    "workspace": Settings({"cudnn_conv_use_max_workspace": "0"}),
    "release": Settings(reuse=False),
    "shrink": Settings(patterns=True, shrink=True),
    "grow": Settings({"arena_extend_strategy": "kNextPowerOfTwo"}),
}


def pytorch(network: Network, picture: Tensor) -> tuple[float, float, Tensor]:
    """Milliseconds in a CUDA graph, GiB, result of our network in PyTorch."""
    ours, half = gpu_network(network).cuda(), picture.half()
    for _ in range(2):
        result = ours(half)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ours(half)
    torch.cuda.synchronize()
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours(half)
    times = []
    for _ in range(15):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop))
    del graph
    torch.cuda.empty_cache()
    return statistics.median(times), peak, result.float().cpu()


def files(network: Network, size: Size, folder: Path, forms: list[str], variants: list[str]) -> dict[str, Form]:
    """ONNX file and library of each form."""
    major, minor = torch.cuda.get_device_capability()
    plain, _ = export_graph(network, ExportOptions(precision="fp16", tile=size))
    fixed = size if network.config.facts().get("whole_picture") else None  # it pads the picture: arithmetic on sizes
    made: dict[str, Form] = {}
    for form in forms:
        if form == "plain":
            continue
        model = traced_with_passes(network, "fp16", fixed, "") if form == "passes" else plain
        changed, operators = with_library(model, [10 * major + minor])
        path, library = folder / f"{form}.onnx", folder / f"{form}.so"
        onnx.save(changed, path)
        build_library(*table_of(operators, [10 * major + minor]), library)
        made[form] = path, library
    changes = {"plain": ""} if "plain" in forms else {}
    changes |= {f"plain:{names}": names for names in variants}
    for number, (form, names) in enumerate(changes.items()):
        path = folder / f"plain{number}.onnx"
        onnx.save(rewritten(plain, names.split("+")) if names else plain, path)
        made[form] = path, None
    return made


def onnx_runtime(form: Form, picture: Tensor, settings: Settings, profile: bool) -> tuple[float, float, Tensor]:
    """Milliseconds, GiB and result of a file."""
    path, library = form
    torch.cuda.synchronize()
    free = torch.cuda.mem_get_info()[0]
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = settings.patterns
    options.enable_mem_reuse = settings.reuse
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if library is not None:
        options.register_custom_ops_library(str(library))
    cuda = {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1",
        "prefer_nhwc": "1",
    } | settings.options
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=[("CUDAExecutionProvider", cuda)])
    height, width = picture.shape[2:]
    value = onnxruntime.OrtValue
    source = value.ortvalue_from_numpy(picture.cpu().numpy(), "cuda", 0)
    shape = [1, 3, SCALE * height, SCALE * width]
    result = value.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("input", source)
    binding.bind_ortvalue_output("output", result)
    if settings.shrink:
        first = onnxruntime.RunOptions()
        first.add_run_config_entry("memory.enable_memory_arena_shrinkage", "gpu:0")
        first.add_run_config_entry("gpu_graph_id", "-1")  # a graph would keep the addresses
        session.run_with_iobinding(binding, first)
    for _ in range(4):
        session.run_with_iobinding(binding)
    times, runs = [], 20 if height * width < 100_000 else 5
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(runs):
            session.run_with_iobinding(binding)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - started) / runs * 1e3)
    memory = (free - torch.cuda.mem_get_info()[0]) / 2**30
    if profile:
        show_kernels(session, binding)
    return statistics.median(times), memory, torch.from_numpy(result.numpy())


def show_kernels(session: Any, binding: Any) -> None:
    """Print the kernels that take longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(3):
            session.run_with_iobinding(binding)
        torch.cuda.synchronize()
    for event in sorted(profile.key_averages(), key=lambda e: -e.device_time_total)[:12]:
        print(f"    {event.device_time_total / 3e3:7.3f} ms {event.count // 3:4d}x {event.key[:100]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=["sst-light", "esc-rib", "sst-plus"])
    parser.add_argument("--sizes", nargs="+", default=["180x320", "540x960"])
    parser.add_argument("--forms", nargs="+", default=["passes", "attention", "plain"])
    parser.add_argument("--variants", nargs="+", default=[], help=f"of the plain file, such as {'+'.join(REWRITES)}")
    parser.add_argument("--settings", nargs="+", default=["usual"], choices=SETTINGS)
    parser.add_argument("--profile", action="store_true", help="list kernels on the first size")
    arguments = parser.parse_args()
    onnxruntime.preload_dlls()
    torch.backends.cudnn.benchmark = True
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__, "ONNX Runtime", onnxruntime.__version__)
    for name in arguments.presets:
        torch.manual_seed(0)
        network = build_model(name, SCALE)
        for index, text in enumerate(arguments.sizes):
            height, width = map(int, text.split("x"))
            picture = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1)).cuda()
            exact = None
            with torch.inference_mode():
                ours = pytorch(network, picture)
                if index == 0:
                    with full_float32("cuda"):
                        exact = network.cuda().reference(picture).cpu().numpy()
                    network.cpu()
            rows = {"PyTorch": ours}
            with tempfile.TemporaryDirectory() as folder:
                made = files(network, (height, width), Path(folder), arguments.forms, arguments.variants)
                for (form, pair), settings in itertools.product(made.items(), arguments.settings):
                    row = form if settings == "usual" else f"{form} {settings}"
                    try:
                        rows[row] = onnx_runtime(pair, picture, SETTINGS[settings], arguments.profile and index == 0)
                    except Exception as error:  # ONNX Runtime's own
                        print(f"{name} {text} {row}: {' '.join(str(error).split())[:200]}")
                    gc.collect()
            for form, (milliseconds, memory, result) in rows.items():
                error = "" if exact is None else f"{rms_ratio(exact, result.numpy(), 1e-6):.1e}"
                print(
                    f"{name} {text} {form:30} {milliseconds:8.2f} ms {milliseconds / ours[0]:5.2f} {memory:6.2f} GiB {error}"
                )


if __name__ == "__main__":
    main()
