"""Loads what a session of PyTorch on a GPU needs, in threads and as early as possible, while the command is still being read.

Loading PyTorch, the context on a GPU and Triton's key each take longer than everything else that is done before the first tile, and
they do not depend on one another. Nothing here is needed: where it fails, whoever wants the thing fails again and says why.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.bundled import BUNDLED

COMMANDS = ("upscale", "video")
CHECKPOINTS = (".pth", ".pt", ".safetensors")
_DRIVER = "libcuda.so.1"
_NVIDIA = Path("/dev/nvidiactl")  # there where the driver is loaded
_ELSEWHERE = ("--cluster", "--threads", "--provider", "-h", "--help")
_LIBRARIES = ("libtorch_global_deps.so", "libtorch_python.so")


def begin(argv: Sequence[str]) -> list[threading.Thread]:
    """Start loading, if a command line asks for PyTorch on a GPU; returns the threads, which need not be waited for."""
    if not (wants_gpu(argv) and _NVIDIA.exists() and sys.platform == "linux"):
        return []
    packages = ("torch", "triton", "safetensors")
    if any(importlib.util.find_spec(name) is None for name in packages):
        return []
    threads = [threading.Thread(target=_quietly, args=(work, argv), daemon=True) for work in (_context, _network)]
    for thread in threads:
        thread.start()
    return threads


def wants_gpu(argv: Sequence[str]) -> bool:
    """Say whether a command line will open PyTorch on a GPU if there is one; what looks unusual is left alone."""
    if not argv or argv[0] not in COMMANDS or any(word.split("=")[0] in _ELSEWHERE for word in argv):
        return False
    if _value(argv, "--device").startswith("cpu"):
        return False
    session, model = _value(argv, "--session"), _value(argv, "--model")
    if session not in ("", "auto"):
        return session == "torch"
    return not model or model in BUNDLED or model.lower().endswith(CHECKPOINTS)


def _value(argv: Sequence[str], option: str) -> str:
    """The value of an option, "" where it is not given."""
    for number, word in enumerate(argv):
        if word == option:
            return argv[number + 1] if number + 1 < len(argv) else ""
        if word.startswith(option + "="):
            return word.partition("=")[2]
    return ""


def _quietly(work: Callable[[Sequence[str]], None], argv: Sequence[str]) -> None:
    with contextlib.suppress(Exception):
        work(argv)


def _context(argv: Sequence[str]) -> None:
    """Make the context on the GPUs, which every library of the process shares; then what Triton finds its compiled kernels by."""
    driver: Any = ctypes.CDLL(_DRIVER)
    driver.cuInit(0)
    for number in _devices(argv):
        device, context = ctypes.c_int(), ctypes.c_void_p()
        if driver.cuDeviceGet(ctypes.byref(device), number) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
    from triton.runtime import cache

    cache.triton_key()


def _devices(argv: Sequence[str]) -> list[int]:
    named = [name.partition(":")[2] for name in _value(argv, "--device").split(",")]
    return [int(number) for number in named if number.isdecimal()] or [0]


def _network(argv: Sequence[str]) -> None:
    """Load PyTorch and the networks, and the libraries that a first convolution and a first product load."""
    # The loader of the system is called as any function, since Python lets nothing else run while it opens a library itself.
    load: Any = ctypes.CDLL(None).dlopen
    load.restype = ctypes.c_void_p
    folder = Path(str(importlib.util.find_spec("torch").origin)).parent / "lib"  # type: ignore[union-attr]  # `begin` found it
    for name, mode in zip(_LIBRARIES, (os.RTLD_NOW | os.RTLD_GLOBAL, os.RTLD_NOW), strict=True):
        load(os.fsencode(folder / name), ctypes.c_int(mode))
    import torch

    for name in ("checkpoint", "gpu.network"):
        importlib.import_module(f"flashrib.model.{name}")
    for number in _devices(argv):
        with torch.inference_mode():
            map_ = torch.zeros(1, 8, 32, 32, dtype=torch.float16, device=f"cuda:{number}")
            torch.nn.functional.conv2d(map_, map_.new_zeros(8, 8, 3, 3), padding=1)
            map_[0, 0] @ map_[0, 1]
