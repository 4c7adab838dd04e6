"""Runs one command line of flashrib and notes when the parts of its start begin and end; benchmarks run it in a process of its own.

    SAYS=says.json BEGAN=$(date +%s.%N) [PROFILE=1] python benchmarks/moments.py upscale photo.jpg -o large.png

Writes JSON: "code"; "parts": name -> [begin, end], seconds since BEGAN, of the first time that each ran; "first": when the first tile
went to a device; "last": when its first result was there; "end"; with PROFILE "busy": the share of the time from the first tile to
the end in which a kernel or a copy ran, the mean over the GPUs.
"""

import functools
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from types import ModuleType
from typing import Any

# Module -> functions in it that are timed; the module itself is as well.
WATCHED: dict[str, tuple[str, ...]] = {
    "numpy": (),
    "torch": (),
    "triton": (),
    "triton.runtime.cache": ("triton_key",),
    "flashrib.runtime.sessions.early": ("_context", "_network"),
    "flashrib.runtime.cli.upscale": (),
    "flashrib.runtime.cli.video": (),
    "flashrib.runtime.jobs.plan": ("plan_jobs",),
    "flashrib.runtime.pictures.files": ("read_picture", "write_picture"),
    "flashrib.runtime.sessions.table": ("choose_session", "open_spec"),
    "flashrib.runtime.sessions.torch_plain": ("load_trained", "info_of_checkpoint"),
    "flashrib.runtime.sessions.torch_gpu.session": ("open_gpu_session", "GpuSession.most_pixels"),
    "flashrib.runtime.sessions.torch_gpu.worker": (
        "GpuWorker.__init__",
        "GpuWorker.bytes_per_pixel",
        "GpuWorker.submit",
        "GpuWorker.collect",
    ),
    "flashrib.runtime.sessions.base": ("OneByOne.submit",),
    "flashrib.model.gpu": ("gpu_network",),
    "flashrib.runtime.tiling.run": ("run_tiles",),
}
began = float(os.environ.get("BEGAN", time.time()))
parts: dict[str, list[float]] = {"python": [0.0, time.time() - began]}


def noted(name: str, function: Any) -> Any:
    """The function, whose first call is noted."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if name in parts:
            return function(*arguments, **named)
        parts[name] = [time.time() - began]
        try:
            return function(*arguments, **named)
        finally:
            parts[name].append(time.time() - began)

    return call


class Watcher(importlib.abc.MetaPathFinder):
    """Times the modules of `WATCHED`, and wraps the functions before anybody takes them."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in WATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def run(module: ModuleType) -> None:
            noted(f"import {name}", execute)(module)
            for place in WATCHED[name]:
                owner, _, function = place.rpartition(".")
                holder = getattr(module, owner) if owner else module
                if hasattr(holder, function):
                    setattr(holder, function, noted(place, getattr(holder, function)))

        spec.loader.exec_module = run  # of this one loader
        return spec


def busy(profile: Any, first: float, end: float) -> float:
    """Share of the time in which GPUs work."""
    spans: dict[int, list[tuple[float, float]]] = {}
    for event in profile.events():
        if event.device_type.name == "CUDA":
            spans.setdefault(event.device_index, []).append((event.time_range.start, event.time_range.end))
    shares = []
    for of_one in spans.values():
        total, reached = 0.0, 0.0
        for start, stop in sorted(of_one):
            total += max(0.0, stop - max(start, reached))
            reached = max(reached, stop)
        shares.append(total * 1e-6 / (end - first))
    return sum(shares) / max(1, len(shares))


def main() -> None:
    sys.meta_path.insert(0, Watcher())
    profile: Any = None
    if os.environ.get("PROFILE"):
        import torch

        profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True)
        profile.__enter__()
    from flashrib.runtime.cli import main as command

    code = command()
    end = time.time() - began
    tiles = [parts[name] for name in ("GpuWorker.submit", "OneByOne.submit", "run_tiles") if name in parts]
    first = min((moments[0] for moments in tiles), default=end)
    last = parts.get("GpuWorker.collect", [end])[-1]
    says: dict[str, Any] = {"code": code, "parts": parts, "first": first, "last": last, "end": end}
    if profile is not None:
        profile.__exit__(None, None, None)
        says["busy"] = busy(profile, first, end)
    with open(os.environ["SAYS"], "w") as file:
        json.dump(says, file)


if __name__ == "__main__":
    main()
