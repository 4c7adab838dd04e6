"""Execution providers of ONNX Runtime: `PROVIDERS` has a row for each that `--provider` takes.

Packages of ONNX Runtime exclude each other: `onnxruntime`, `onnxruntime-gpu` and the like all install the module `onnxruntime`. Providers
that are plug-ins have packages of their own, which are loaded into any `onnxruntime`.
"""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from flashrib.runtime.errors import SessionError, UsageError

PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


@dataclass(frozen=True)
class Provider:
    """An execution provider.

    Attributes:
        name: what `--provider` takes.
        called: by ONNX Runtime.
        hardware: what it runs on.
        package: what to install for it.
        plugin: module of a plug-in provider; None: the provider is part of `package`.
        options: provider options that flashrib sets where the user does not.
        precisions: of ONNX files that it has kernels for.
        tried: True where flashrib's own figures and tests ran on it.
    """

    name: str
    called: str
    hardware: str
    package: str
    plugin: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    precisions: tuple[str, ...] = ("fp32", "fp16")
    tried: bool = False


PROVIDERS = {
    row.name: row
    for row in (
        Provider(
            "cpu",
            "CPUExecutionProvider",
            "any CPU",
            "onnxruntime",
            precisions=("fp32", "fp16", "int8", "fp8"),
            tried=True,
        ),
        Provider(
            "cuda",
            "CUDAExecutionProvider",
            "NVIDIA GPUs",
            "onnxruntime-gpu",
            options={"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"},
            precisions=("fp32", "fp16", "bf16"),
            tried=True,
        ),
        Provider(
            "tensorrt",
            "TensorrtExecutionProvider",
            "NVIDIA GPUs, with TensorRT 10 beside it",
            "onnxruntime-gpu",
            precisions=("fp32", "fp16", "bf16"),
        ),
        Provider(
            "tensorrt-rtx",
            "NvTensorRTRTXExecutionProvider",
            "NVIDIA RTX cards from 30xx on",
            "onnxruntime-ep-nv-tensorrt-rtx",
            plugin="onnxruntime_ep_nv_tensorrt_rtx",
            precisions=("fp32", "fp16", "bf16"),
        ),
        Provider(
            "openvino",
            "OpenVINOExecutionProvider",
            "Intel CPUs, GPUs and NPUs",
            "onnxruntime-openvino",
        ),
        Provider("directml", "DmlExecutionProvider", "any GPU on Windows", "onnxruntime-directml"),
        Provider("coreml", "CoreMLExecutionProvider", "Apple machines", "onnxruntime"),
    )
}

# What a graph may do on the CPU without a word: arithmetic on sizes.
_SIZES = {
    "Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Floor", "Gather", "Identity", "Max", "Min",
    "Mod", "Mul", "Neg", "Range", "ReduceProd", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Sub", "Transpose", "Unsqueeze",
    "Where",
}  # fmt: skip


def provider_named(name: str) -> Provider:
    """Return a row of the table.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in PROVIDERS:
        raise UsageError(f"provider {name!r} is not one of {', '.join(PROVIDERS)}")
    return PROVIDERS[name]


def load_onnxruntime() -> ModuleType:
    """Return the module `onnxruntime`.

    Raises:
        SessionError: it is not installed, or damaged.
    """
    try:
        module = importlib.import_module("onnxruntime")
        module.InferenceSession  # noqa: B018  # a folder of this name that a removed package left behind has none
    except ModuleNotFoundError as error:
        raise SessionError(
            "running an ONNX file needs onnxruntime: pip install onnxruntime, or onnxruntime-gpu for an NVIDIA GPU"
        ) from error
    except (ImportError, AttributeError) as error:
        both = installed_packages()
        why = f"{' and '.join(both)} overwrite each other" if len(both) > 1 else " ".join(str(error).split())
        raise SessionError(
            f"onnxruntime cannot be loaded ({why}): pip uninstall -y {' '.join(both or ['onnxruntime'])}, then install one of"
            f" {', '.join(PACKAGES)}"
        ) from error
    return module


def installed_packages() -> list[str]:
    """Return the packages that bring the module `onnxruntime`; more than one is a mistake."""
    found = []
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def has_provider(provider: Provider) -> bool:
    """Say whether a provider is installed; whether there is hardware for it, only opening a session tells."""
    if provider.plugin is not None:
        return importlib.util.find_spec(provider.plugin) is not None
    try:
        return provider.called in load_onnxruntime().get_available_providers()
    except SessionError:
        return False


def require_provider(provider: Provider) -> None:
    """Raise SessionError where a provider is not installed, and say what to install."""
    if has_provider(provider):
        return
    there = installed_packages()
    if provider.plugin is not None:
        raise SessionError(
            f"--provider {provider.name}: needs the package {provider.package}: pip install {provider.package}"
        )
    if provider.package in there and len(there) > 1:
        raise SessionError(
            f"--provider {provider.name}: {' and '.join(there)} are both installed and overwrite each other: pip uninstall -y"
            f" {' '.join(there)}, then pip install {provider.package}"
        )
    have = f"{there[0]}, which has no such provider" if there else "no onnxruntime"
    raise SessionError(
        f"--provider {provider.name}: installed is {have}: pip uninstall -y {there[0] if there else 'onnxruntime'}, then pip install"
        f" {provider.package}"
    )


def add_provider(session_options: Any, provider: Provider, options: Mapping[str, str]) -> list[Any]:
    """Prepare a session for a provider; returns what `InferenceSession` takes as `providers`.

    Raises:
        SessionError: it is not installed, or a plug-in finds no device.
    """
    require_provider(provider)
    onnxruntime: Any = load_onnxruntime()
    chosen = {**provider.options, **options}
    if provider.plugin is None:
        if provider.name in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA and cuDNN out of pip's packages or PyTorch
        return [(provider.called, chosen)]
    plugin: Any = importlib.import_module(provider.plugin)
    name = plugin.get_ep_name()
    if all(device.ep_name != name for device in onnxruntime.get_ep_devices()):
        onnxruntime.register_execution_provider_library(name, plugin.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        raise SessionError(f"--provider {provider.name}: finds none of its devices here ({provider.hardware})")
    session_options.add_provider_for_devices(devices[:1], chosen)
    return []


def check_placement(session: Any, provider: Provider, path: object) -> None:
    """Refuse a session part of whose work is not where it should be.

    Raises:
        SessionError: the provider did not start, or a node that is no arithmetic on sizes is left to the CPU.
    """
    if provider.name == "cpu":
        return
    if provider.called not in session.get_providers():
        raise SessionError(
            f"{path}: the provider {provider.name} did not start: are its driver and libraries there? `flashrib info --devices` lists them"
        )
    if not hasattr(session, "get_provider_graph_assignment_info"):  # before ONNX Runtime 1.24
        return
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name != "CPUExecutionProvider":
            continue
        for node in part.get_nodes():
            if node.op_type not in _SIZES:
                raise SessionError(
                    f"{path}: the provider {provider.name} has no kernel for the node {node.name or '?'} ({node.op_type}), which would run"
                    " on the CPU: export the model in another precision, or use --provider cpu"
                )
