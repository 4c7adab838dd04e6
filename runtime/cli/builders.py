"""What `flashrib build` can make: `BUILDERS` has a row for each value of `--flavour`, with the options that it takes.

A builder from outside adds a row; an option that a row does not take is refused by `check_options`, and nowhere else.
"""

import argparse
import dataclasses
import importlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from flashrib.runtime.artifacts.bundled import or_bundled_model, or_bundled_weights
from flashrib.runtime.artifacts.engine import EngineManifest
from flashrib.runtime.cli.options import noise_source
from flashrib.runtime.cli.output import BuildBar
from flashrib.runtime.errors import MissingPackageError, UsageError
from flashrib.runtime.nvidia.flavours import FLAVOURS
from flashrib.runtime.sessions.torch_plain import require_torch


class Built(NamedTuple):
    """What a builder says about what it built: the document of --json, and the rows of the table."""

    document: dict[str, Any]
    rows: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Builder:
    """A builder.

    Attributes:
        name: the value of `--flavour`.
        help: what it is for, behind its name in the help of `--flavour`.
        options: those of the command, beside the model and the output, that it takes.
        build: takes the arguments of the command; imports what it needs.
    """

    name: str
    help: str
    options: tuple[str, ...]
    build: Callable[[argparse.Namespace], Built]


def check_options(builder: Builder, arguments: argparse.Namespace) -> None:
    """Refuse options that a builder does not take; their values are None, False or empty where they are not given.

    Raises:
        UsageError: one is given.
    """
    for name in dict.fromkeys(name for row in BUILDERS.values() for name in row.options):
        value = getattr(arguments, name)
        given = value is not None and value is not False and value != ()  # the seed 0 is given
        if name not in builder.options and given:
            owners = " or ".join(row.name for row in BUILDERS.values() if name in row.options)
            raise UsageError(
                f"--{name.replace('_', '-')}: --flavour {builder.name} has no such option, it belongs to {owners}: leave it out"
            )


def build_engine_file(arguments: argparse.Namespace) -> Built:
    """Build an engine of either flavour of TensorRT."""
    try:
        importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise MissingPackageError("onnx", "building an engine", "export") from error
    from flashrib.export.engine.build import build_engine
    from flashrib.export.engine.options import EngineOptions

    options = EngineOptions(
        arguments.flavour,
        arguments.target,
        arguments.min,
        arguments.opt,
        arguments.max,
        arguments.workspace,
        arguments.version_compatible,
        arguments.attention or "native",
    )
    started = time.perf_counter()
    with BuildBar() as bar:
        manifest, cached = build_engine(
            or_bundled_model(arguments.model),
            arguments.output,
            options,
            timing_cache=arguments.timing_cache,
            progress=bar.report,
        )
    seconds = round(time.perf_counter() - started, 1)
    document = {"engine": str(arguments.output), "cached": cached, "seconds": seconds, **manifest.to_dict()}
    return Built(document, _rows_of_engine(arguments, manifest, cached, seconds))


def build_package_file(arguments: argparse.Namespace) -> Built:
    """Build a package of AOTInductor."""
    if len(arguments.target) > 1:
        raise UsageError(f"--target {','.join(arguments.target)}: a package is for one target, current or cpu")
    require_torch("building a package of AOTInductor")
    from flashrib.export.package.build import build_package
    from flashrib.export.package.options import PackageOptions

    target = arguments.target[0] if arguments.target else "current"
    precision = arguments.precision or ("fp32" if target == "cpu" else "fp16")
    options = PackageOptions(precision, arguments.opt, target, noise_source(arguments))
    source = or_bundled_weights(arguments.model)
    manifest = build_package(source, arguments.output, options, arguments.arch, arguments.scale, arguments.key)
    major, minor = manifest.capability
    height, width = manifest.size
    rows = [
        ("package", f"{arguments.output}, in {manifest.build_seconds:.1f} s"),
        ("built by", f"PyTorch {manifest.torch}"),
        ("runs on", "the CPU" if manifest.device == "cpu" else f"GPUs of compute capability {major}.{minor}"),
        ("size", f"{height}x{width}"),
        ("precision", manifest.model.precision),
    ]
    return Built({"package": str(arguments.output), **manifest.to_dict()}, rows)


def build_library_file(arguments: argparse.Namespace) -> Built:
    """Build an ONNX file with a library of custom operators."""
    try:
        importlib.import_module("onnx")
    except ModuleNotFoundError as error:
        raise MissingPackageError("onnx", "building a library for ONNX Runtime", "export") from error
    require_torch("building a library for ONNX Runtime")
    from flashrib.export.onnxruntime.build import build_with_library
    from flashrib.export.onnxruntime.options import TARGETS, LibraryOptions

    options = LibraryOptions(arguments.target or TARGETS, arguments.precision, arguments.opt, noise_source(arguments))
    source = or_bundled_weights(arguments.model)
    manifest = build_with_library(source, arguments.output, options, arguments.arch, arguments.scale, arguments.key)
    what = "attention and the passes between" if manifest.passes else "attention"
    run = f"on {manifest.checked_on}" if manifest.checked_on else "by its bodies alone; on the GPU: flashrib verify"
    rows = [
        ("ONNX file", f"{arguments.output}, in {manifest.build_seconds:.1f} s"),
        ("library", f"{manifest.library}: {what}, {manifest.operators} kernels by Triton {manifest.triton}"),
        ("runs on", ", ".join(manifest.targets) + "; without the library anywhere"),
        ("precision", manifest.model.precision),
        ("checked", run),
    ]
    return Built({"model_file": str(arguments.output), **manifest.to_dict()}, rows)


def _rows_of_engine(
    arguments: argparse.Namespace, manifest: EngineManifest, cached: bool, seconds: float
) -> list[tuple[str, str]]:
    smallest, usual, largest = (f"{height}x{width}" for height, width in manifest.shapes)
    made = f"from the cache, built in {manifest.build_seconds:.1f} s" if cached else f"in {seconds:.1f} s"
    fused = ": attention is fused in every layer" if manifest.model.windows else ""  # other attention is not checked
    return [
        ("engine", f"{arguments.output}, {made}"),
        ("built by", f"{FLAVOURS[manifest.flavour].product} {manifest.version}"),
        ("runs on", ", ".join(manifest.targets) or "every GPU that it supports by default"),
        ("sizes", usual if manifest.fixed_size else f"{smallest} to {largest}, best at {usual}"),
        ("precision", manifest.precision),
        ("scratch memory", f"{manifest.scratch_bytes / 1e6:.0f} MB{fused}"),
        ("not run yet", f"on the GPU: flashrib verify REFERENCE {arguments.output}"),
    ]


_OF_CHECKPOINTS = ("precision", "arch", "scale", "key", "noise_seed", "no_noise")

BUILDERS = {
    row.name: row
    for row in (
        Builder(
            "rtx",
            "TensorRT-RTX, for GeForce and RTX cards, needs no GPU",
            ("target", "min", "opt", "max", "workspace"),
            build_engine_file,
        ),
        Builder(
            "tensorrt",
            "TensorRT, on the GPU that it is for",
            ("target", "min", "opt", "max", "workspace", "timing_cache", "version_compatible", "attention"),
            build_engine_file,
        ),
        Builder(
            "aoti",
            "PyTorch's AOTInductor, on the GPU that it is for",
            ("target", "opt", *_OF_CHECKPOINTS),
            build_package_file,
        ),
        Builder(
            "onnxruntime",
            "an ONNX file with a library of flashrib's kernels for ONNX Runtime's CUDA provider, needs no GPU",
            ("target", "opt", *_OF_CHECKPOINTS),
            build_library_file,
        ),
    )
}
