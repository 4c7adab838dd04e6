"""An ONNX model whose operators are plugins: TensorRT's parser takes a node for a plugin once nothing else explains it."""

import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from flashrib.export.operators.bodies import operator_nodes, operators_of, without_functions
from flashrib.export.operators.operator import DOMAIN, Operator
from flashrib.runtime.errors import MissingPackageError, SessionError, UsageError
from flashrib.runtime.nvidia.flavours import version_numbers

OLDEST = (10, 9)  # has plugins that are compiled ahead of time
BROKEN = (10, 14)  # cannot build them


def with_plugin(model: ModelProto, trt: Any, targets: tuple[str, ...]) -> ModelProto:
    """Register the plugins with TensorRT and return a copy of `model` whose operator nodes are they.

    Args:
        model: as from `flashrib.export`.
        trt: module of TensorRT.
        targets: what the engine is for, as from `flashrib.export.engine.configure.targets_of`.

    Raises:
        UsageError: an operator of the model has no plugin, or its plugin needs a model of a fixed size.
        SessionError: this version of TensorRT has no such plugins, or no target is known.
        MissingPackageError: Triton is not installed.
    """
    rows = operators_of(model)
    capability = capability_of(targets)
    register(trt, rows)
    result = ModelProto()
    result.CopyFrom(model)
    for row in rows:
        if row.plugin is not None and row.plugin.prepare is not None:
            importlib.import_module(row.plugin.prepare).prepare(result, capability)
    for node in operator_nodes(result):
        node.ClearField("overload")
        for name, value in (("capability", capability), ("plugin_namespace", DOMAIN), ("plugin_version", "1")):
            node.attribute.append(onnx.helper.make_attribute(name, value))
    without_functions(result, [row.op_type for row in rows])
    return result


def register(trt: Any, rows: Sequence[Operator]) -> None:
    """Register the plugins of operators with TensorRT, once.

    Raises:
        UsageError: an operator has no plugin.
        SessionError: this version of TensorRT has no such plugins.
        MissingPackageError: Triton is not installed.
    """
    modules = []
    for row in rows:
        if row.plugin is None:
            raise UsageError(f"--attention plugin: {DOMAIN}::{row.op_type} has no plugin; use --attention native")
        modules.append(row.plugin.registration)
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
        for module in modules:
            importlib.import_module(module)
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


def fingerprint(rows: Sequence[Operator]) -> str:
    """Return a text that changes with whatever decides the operators' compiled kernels; raises nothing where Triton is missing."""
    try:
        compiler = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        compiler = "none"
    content = hashlib.sha256()
    for name in dict.fromkeys(source for row in rows if row.plugin is not None for source in row.plugin.sources):
        for path in source_files(name):
            content.update(path.read_bytes())
    return f"plugin, triton {compiler}, {content.hexdigest()}"


def source_files(name: str) -> list[Path]:
    """Return the files of a module, or of a package and all modules in it; the modules are not imported, the packages above are."""
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"no module {name}"
    assert spec.origin is not None, f"{name} has no file"
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)]
    modules = sorted(module.name for module in pkgutil.iter_modules(spec.submodule_search_locations, f"{name}."))
    assert modules, f"no modules in {name}"
    return [Path(spec.origin), *(path for module in modules for path in source_files(module))]
