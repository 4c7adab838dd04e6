"""What this machine has to run models with: devices, providers, packages and their versions, and what each kind of session lacks."""

import importlib.metadata
import importlib.util
import os
from typing import Any

from flashrib.runtime.errors import SessionError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.sessions.providers import PROVIDERS, has_provider, installed_packages
from flashrib.runtime.sessions.table import SESSIONS

# Distributions that decide what can run, and the modules that tell whether they are there.
_PACKAGES = {
    "torch": "torch",
    "triton": "triton",
    "tensorrt": "tensorrt",
    "tensorrt-rtx-cu13-bindings": "tensorrt_rtx_bindings",
}


def describe_devices() -> dict[str, Any]:
    """Return what there is, in JSON's types: `cpu`, `gpu`, `packages`, `providers` and `sessions`, each session with what is missing."""
    try:
        gpu = find_gpu()
        seen: dict[str, Any] | None = {
            "name": gpu.name,
            "capability": f"sm{10 * gpu.capability[0] + gpu.capability[1]}",
        }
        no_gpu = ""
    except SessionError as error:
        seen, no_gpu = None, str(error).partition(",")[0]
    there = {name: _version(name) for name in (*installed_packages(), *_PACKAGES)}
    return {
        "cpu": f"{os.cpu_count()} cores",
        "gpu": seen or no_gpu,
        "packages": {name: version for name, version in there.items() if version},
        "providers": {name: has_provider(row) for name, row in PROVIDERS.items()},
        "sessions": {name: _missing(name, seen is not None) for name, row in SESSIONS.items() if row.automatic},
    }


def _missing(session: str, gpu: bool) -> str:
    """What a session lacks here, in a few words; "" where it runs on the best device it knows."""
    wanted = {
        "onnxruntime": [] if installed_packages() else ["onnxruntime"],
        "torch": [name for name in ("torch", "triton") if _absent(name)],
        "aoti": [name for name in ("torch",) if _absent(name)],
        "tensorrt": []
        if not (_absent("tensorrt") and _absent("tensorrt-rtx-cu13-bindings"))
        else ["tensorrt or tensorrt-rtx"],
    }[session]
    if session == "torch" and not gpu and wanted == ["triton"]:
        wanted = []
    lacks = [f"pip install {' '.join(wanted)}"] if wanted else []
    if gpu and session == "onnxruntime" and not has_provider(PROVIDERS["cuda"]):
        lacks.append(f"on the CPU alone: pip install {PROVIDERS['cuda'].package} in place of onnxruntime for the GPU")
    if not gpu and session == "tensorrt":
        lacks.append("a GPU")
    return "; ".join(lacks)


def _absent(distribution: str) -> bool:
    return importlib.util.find_spec(_PACKAGES[distribution]) is None


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
