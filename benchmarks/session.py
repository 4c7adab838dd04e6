"""The GPU session from pixels to pixels: seconds, memory and idle time of the GPU for pictures of several sizes.

    python benchmarks/session.py [--megapixels 0.25 1 4 16 32] [--tile N | --whole] [--halo N] [--precision fp32]
        [--device cuda:0,cuda:1] [--model FILE] [--runs N]

Pictures are random bytes in memory; nothing is decoded or encoded. A time is the median of some runs after two that are not counted.
"computed" counts the pixels that the tiles read, halos and all. "idle" is the part of a run's time in which none of the GPU's kernels or
copies runs, by PyTorch's profiler; of several GPUs, the mean. Memory is the peak of what PyTorch's allocator hands out on the first GPU,
in all and per pixel that the largest tile reads.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from moments import busy

from flashrib.runtime.artifacts.bundled import bundled_weights
from flashrib.runtime.cli.options import whole_number
from flashrib.runtime.sessions.protocol import Pixels
from flashrib.runtime.sessions.table import open_session
from flashrib.runtime.sessions.torch_gpu.session import PRECISIONS, GpuSession
from flashrib.runtime.tiling.plan import plan
from flashrib.runtime.tiling.upscale import DEFAULT_HALO, tile_sides, upscale_array


def picture(megapixels: float) -> Pixels:
    """A random picture of about this size, 4:3, its sides multiples of 16."""
    width = max(round((megapixels * 1e6 * 4 / 3) ** 0.5 / 16), 1) * 16
    height = max(round(megapixels * 1e6 / width / 16), 1) * 16
    return np.random.default_rng().integers(0, 256, (height, width, 3), np.uint8)


def idle_share(session: GpuSession, pixels: Pixels, tile: int | tuple[int, int] | None, halo: int) -> float:
    """Part of a run in which a GPU does nothing."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        started = time.perf_counter()
        upscale_array(session, pixels, tile=tile, halo=halo)
        seconds = time.perf_counter() - started
    return 1 - busy(profile, 0, seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.25, 1, 4, 16, 32])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--tile", type=whole_number(1))
    size.add_argument("--whole", action="store_true")
    parser.add_argument("--halo", type=whole_number(0), default=DEFAULT_HALO)
    parser.add_argument("--precision", choices=("auto", *PRECISIONS), default="auto")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", type=Path, default=bundled_weights())
    parser.add_argument("--runs", type=whole_number(1), default=5)
    arguments = parser.parse_args()
    session = open_session(arguments.model, device=arguments.device, precision=arguments.precision)
    if not isinstance(session, GpuSession):
        raise SystemExit("this measures the session for GPUs: there is none here")
    names = ", ".join(torch.cuda.get_device_name(device) for device in session.devices)
    print(
        f"{names}; PyTorch {torch.__version__}; {arguments.model.name}, {session.info.precision}, halo {arguments.halo}"
    )
    columns = "megapixels|largest tile|tiles|computed|seconds|ns / pixel|ns / computed|idle|peak, MB|B / pixel"
    print(f"| {columns.replace('|', ' | ')} |")
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for megapixels in arguments.megapixels:
        pixels = picture(megapixels)
        height, width = pixels.shape[:2]
        tile = max(height, width) if arguments.whole else arguments.tile
        sides = tile_sides(session, tile, arguments.halo, height, width)
        info = session.info
        tiles = plan(height, width, sides, arguments.halo, info.alignment, info.minimum, info.fixed_size)
        torch.cuda.reset_peak_memory_stats(session.devices[0])
        times = []
        for _ in range(2 + arguments.runs):
            started = time.perf_counter()
            upscale_array(session, pixels, tile=sides, halo=arguments.halo)
            times.append(time.perf_counter() - started)
        seconds = statistics.median(times[2:])
        peak = torch.cuda.max_memory_allocated(session.devices[0])
        idle = idle_share(session, pixels, sides, arguments.halo)
        count, (high, wide) = height * width, tiles.largest
        print(
            f"| {count / 1e6:.2f} | {high}x{wide} | {len(tiles)} | {tiles.overhead:.2f} | {seconds:.4f} |"
            f" {seconds / count * 1e9:.1f} | {seconds / count / tiles.overhead * 1e9:.1f} | {idle:.1%} | {peak / 1e6:.0f} |"
            f" {peak / (high * wide):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
