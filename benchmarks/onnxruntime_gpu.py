"""ONNX Runtime on one NVIDIA GPU beside our GPU session in PyTorch: time, memory and error, with the custom operators and without.

    python benchmarks/onnxruntime_gpu.py [--presets sst-light esc-rib ...] [--sizes 180x320 540x960] [--profile]

Needs onnxruntime-gpu and PyTorch for CUDA. Networks are x4 with random weights, fp16. Forms of a network in ONNX Runtime, all with buffers
on the GPU (IOBinding) and a CUDA graph:

    passes      attention and the fused passes by the library (built from the checkpoint)
    attention   attention alone by the library, the rest ONNX Runtime's (built from the ONNX file of one size)
    plain       the ONNX file of one size, ONNX Runtime's own kernels

A time is the median of five means over runs without waiting between them; memory is what the GPU has less of while the session is there,
buffers, libraries' workspaces and all; of PyTorch it is the peak of the allocator above what the network holds. The error is relative RMS
to the network in float32 on the first size.
"""

import argparse
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


def files(network: Network, size: Size, folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """ONNX file and library of each form."""
    major, minor = torch.cuda.get_device_capability()
    plain, _ = export_graph(network, ExportOptions(precision="fp16", tile=size))
    fixed = size if network.config.facts().get("whole_picture") else None  # it pads the picture: arithmetic on sizes
    models = {"passes": traced_with_passes(network, "fp16", fixed, ""), "attention": plain}
    made: dict[str, tuple[Path, Path | None]] = {}
    for form, model in models.items():
        changed, operators = with_library(model, [10 * major + minor])
        path, library = folder / f"{form}.onnx", folder / f"{form}.so"
        onnx.save(changed, path)
        build_library(*table_of(operators, [10 * major + minor]), library)
        made[form] = path, library
    onnx.save(plain, folder / "plain.onnx")
    return made | {"plain": (folder / "plain.onnx", None)}


def onnx_runtime(path: Path, library: Path | None, picture: Tensor, profile: bool) -> tuple[float, float, Tensor]:
    """Milliseconds, GiB and result of a file."""
    torch.cuda.synchronize()
    free = torch.cuda.mem_get_info()[0]
    options = onnxruntime.SessionOptions()
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if library is not None:
        options.register_custom_ops_library(str(library))
    cuda = {
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1",
        "prefer_nhwc": "1",
    }
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=[("CUDAExecutionProvider", cuda)])
    height, width = picture.shape[2:]
    value = onnxruntime.OrtValue
    source = value.ortvalue_from_numpy(picture.cpu().numpy(), "cuda", 0)
    shape = [1, 3, SCALE * height, SCALE * width]
    result = value.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("input", source)
    binding.bind_ortvalue_output("output", result)
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
                for form, (path, library) in files(network, (height, width), Path(folder)).items():
                    try:
                        rows[form] = onnx_runtime(path, library, picture, arguments.profile and index == 0)
                    except Exception as error:  # ONNX Runtime's own
                        print(f"{name} {text} {form}: {' '.join(str(error).split())[:200]}")
            for form, (milliseconds, memory, result) in rows.items():
                error = "" if exact is None else f"{rms_ratio(exact, result.numpy(), 1e-6):.1e}"
                print(
                    f"{name} {text} {form:10} {milliseconds:8.2f} ms {milliseconds / ours[0]:5.2f} {memory:6.2f} GiB {error}"
                )


if __name__ == "__main__":
    main()
