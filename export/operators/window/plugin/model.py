"""An ONNX model whose attention is the plugin: TensorRT's parser takes a node for a plugin once nothing else explains it."""

import hashlib
import importlib
import importlib.metadata
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from flashrib.export.operators.forms import DOMAIN, attention_nodes
from flashrib.runtime.errors import MissingPackageError, SessionError
from flashrib.runtime.nvidia.flavours import version_numbers

OLDEST = (10, 9)  # has plugins that are compiled ahead of time
BROKEN = (10, 14)  # cannot build them
_PACKAGE = Path(__file__).parents[4]


def with_plugin(model: ModelProto, trt: Any, targets: tuple[str, ...]) -> ModelProto:
    """Register the plugin with TensorRT and return a copy of `model` whose attention nodes are it.

    Args:
        model: as from `flashrib.export`.
        trt: module of TensorRT.
        targets: what the engine is for, as from `flashrib.export.engine.configure.targets_of`.

    Raises:
        SessionError: this version of TensorRT has no such plugins, or no target is known.
        MissingPackageError: Triton is not installed.
    """
    capability = capability_of(targets)
    register(trt)
    result = ModelProto()
    result.CopyFrom(model)
    for node in attention_nodes(result):
        for name, value in (("capability", capability), ("plugin_namespace", DOMAIN), ("plugin_version", "1")):
            node.attribute.append(onnx.helper.make_attribute(name, value))
    kept = [
        function for function in result.functions if (function.domain, function.name) != (DOMAIN, "WindowAttention")
    ]
    del result.functions[:]
    result.functions.extend(kept)
    return result


def register(trt: Any) -> None:
    """Register the plugin with TensorRT, once.

    Raises:
        SessionError: this version of TensorRT has no such plugins.
        MissingPackageError: Triton is not installed.
    """
    version = version_numbers(trt.__version__)
    if version < OLDEST or version[:2] == BROKEN:
        raise SessionError(
            f"--attention plugin: TensorRT {trt.__version__} cannot build plugins that are compiled ahead of time: install 10.9 to"
            " 10.13, 10.15 or later, or use --attention native"
        )
    try:
        importlib.import_module("triton")
    except ModuleNotFoundError as error:
        raise MissingPackageError("triton", "compiling the attention plugin", "gpu") from error
    try:
        importlib.import_module("flashrib.export.operators.window.plugin.registration")
    except ModuleNotFoundError as error:
        raise SessionError(
            f"--attention plugin: TensorRT {trt.__version__} is installed without its Python module tensorrt.plugin"
            f" ({error}): install the complete package, or use --attention native"
        ) from error


def capability_of(targets: tuple[str, ...]) -> int:
    """Return the compute capability, 10 * major + minor, whose PTX runs on all targets.

    Raises:
        SessionError: there is no GPU on this machine, so no target is known.
    """
    if not targets:
        raise SessionError(
            "--attention plugin: there is no GPU on this machine, and the plugin is compiled for one: build on the GPU that the"
            " engine is for, or use --target ampere+"
        )
    return 80 if targets == ("ampere+",) else int(targets[0].removeprefix("sm"))


def fingerprint() -> str:
    """Return a text that changes with whatever decides over the compiled kernels; raises nothing where Triton is missing."""
    try:
        compiler = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        compiler = "none"
    sources = [*_PACKAGE.glob("model/attention/window/*.py"), *_PACKAGE.glob("export/operators/window/plugin/*.py")]
    content = b"".join(path.read_bytes() for path in sorted(sources))
    return f"plugin, triton {compiler}, {hashlib.sha256(content).hexdigest()}"
