"""SST-Real on one CUDA GPU: the official data flow and ours, one picture of 180 x 320 pixels, x4.

    python benchmarks/sst_real.py [--size 180x320] [--profile] [--ours]

The official flow (`official_flow.py`: bias MLP every time, widened v, PyTorch's fused attention) under fp16 autocast, channels-last, with
cuDNN's and the flash attention, eager and as a CUDA graph; ours is `gpu_network` in fp16 as a CUDA graph. Random weights, medians; the
memory is the peak of an eager run above what was in use before. Error: relative RMS to float32, of ours and of the official one.
`--profile` adds milliseconds and launches of one run of ours by class of kernel and by kernel; `--ours` leaves the official flow out.
"""

import argparse
import gc
from collections.abc import Callable
from functools import partial

import torch
from network import by_kernel, captured, float32_as, kernel_classes, milliseconds
from official_flow import official_flow
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from flashrib.model import build_model
from flashrib.model.gpu import gpu_network

MOST_KERNELS = 25  # lines of --profile
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}


def peak(run: Callable[[], object], before: int) -> float:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="180x320")
    parser.add_argument("--profile", action="store_true", help="milliseconds of ours by kernel")
    parser.add_argument("--ours", action="store_true", help="leave the official flow out, but for the float32 result")
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    network = build_model("sst-real", 4)
    with torch.no_grad():  # gates and modulation start at 0, which would make every layer the identity
        for name, parameter in network.named_parameters():
            if "adaLN" in name:
                parameter.normal_(0, 0.02)
            if name.endswith("gamma"):
                parameter.fill_(0.2)
    rows, columns = (-(-side // 64) * 256 for side in (height, width))
    picture, noise = torch.rand(1, 3, height, width).cuda(), torch.randn(1, 3, rows, columns).cuda()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {args.size}")
    with torch.inference_mode():
        fast = gpu_network(network, torch.float16)
        before = torch.cuda.memory_allocated()
        official: nn.Module = official_flow(network).cuda().to(memory_format=torch.channels_last)
        float32_as("ieee")
        exact = official.reference(picture, noise)
        float32_as("tf32")

        def rival(backend: SDPBackend, x: Tensor) -> Tensor:
            with sdpa_kernel(backend), torch.autocast("cuda", torch.float16):
                y: Tensor = official.reference(x, noise)
            return y

        def error(found: Tensor) -> float:
            return float((found.float() - exact).norm() / exact.norm())

        for name, backend in () if args.ours else BACKENDS.items():
            run = partial(rival, backend)
            memory = peak(partial(run, picture), before)
            eager, wrong = milliseconds(partial(run, picture)), error(run(picture))
            graph = milliseconds(captured(run, picture))
            print(
                f"official {name}: {eager:.1f} ms, graph {graph:.1f} ms, {memory:.2f} GiB, error {wrong:.1e}",
                flush=True,
            )
        official.cpu()
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        fast = fast.cuda()

        def ours(x: Tensor) -> Tensor:
            y: Tensor = fast(x.half(), noise.half())
            return y

        wrong = error(ours(picture))
        memory = peak(partial(ours, picture), before)
        replay = captured(ours, picture)
        eager, graph = milliseconds(partial(ours, picture)), milliseconds(replay)
        print(f"ours: {eager:.1f} ms, graph {graph:.1f} ms, {memory:.2f} GiB, error {wrong:.1e}", flush=True)
        if args.profile:
            print("  " + ", ".join(f"{kind} {time:.2f}" for kind, time in kernel_classes(replay).items()))
            for name, count, time in by_kernel(replay)[:MOST_KERNELS]:
                print(f"  {time:8.3f} ms {count:5d} x {name[:110]}")


if __name__ == "__main__":
    main()
