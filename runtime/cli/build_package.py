"""`flashrib build --flavour aoti`: a package of AOTInductor from a checkpoint."""

import argparse
import dataclasses

from flashrib.runtime.cli.output import print_json, print_table
from flashrib.runtime.errors import UsageError
from flashrib.runtime.sessions.torch_plain import require_torch

# Options that engines have and packages have not, with their values when they are not given.
_OF_ENGINES = {
    "min": None,
    "max": None,
    "workspace": None,
    "timing_cache": None,
    "version_compatible": False,
    "attention": "native",
}


def add_package_options(parser: argparse.ArgumentParser) -> None:
    """Add what packages have and engines have not."""
    group = parser.add_argument_group("packages of AOTInductor (--flavour aoti)")
    group.add_argument("--precision", choices=("fp32", "fp16", "bf16"), help="what it computes in; default: fp16")
    group.add_argument(
        "--arch", metavar="NAME", help="architecture of a checkpoint that does not say it itself, such as sst-plus"
    )
    group.add_argument(
        "--scale", metavar="N", type=int, help="magnification of a checkpoint that does not say it itself"
    )


def check_no_package_options(arguments: argparse.Namespace) -> None:
    """Refuse options of packages where an engine is built.

    Raises:
        UsageError: one is given.
    """
    for name in ("precision", "arch", "scale"):
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name}: belongs to --flavour aoti; an engine takes it from its ONNX file")


def run_build_package(arguments: argparse.Namespace) -> int:
    """Build a package; `arguments` are those of `flashrib build`."""
    for name, value in _OF_ENGINES.items():
        if getattr(arguments, name) != value:
            raise UsageError(f"--{name.replace('_', '-')}: a package takes one size, --opt, and has no such option")
    if len(arguments.target) > 1:
        raise UsageError(f"--target {','.join(arguments.target)}: a package is for one target, current or cpu")
    require_torch("building a package of AOTInductor")
    from flashrib.export.package.build import PackageOptions, build_package

    target = arguments.target[0] if arguments.target else "current"
    precision = arguments.precision or ("fp32" if target == "cpu" else "fp16")
    options = PackageOptions(precision, arguments.opt, target)
    manifest = build_package(arguments.model, arguments.output, options, arguments.arch, arguments.scale)
    if arguments.json:
        print_json({"package": str(arguments.output), **dataclasses.asdict(manifest)})
        return 0
    major, minor = manifest.capability
    height, width = manifest.size
    print_table(
        [
            ("package", f"{arguments.output}, in {manifest.build_seconds:.1f} s"),
            ("built by", f"PyTorch {manifest.torch}"),
            ("runs on", "the CPU" if manifest.device == "cpu" else f"GPUs of compute capability {major}.{minor}"),
            ("size", f"{height}x{width}"),
            ("precision", manifest.model.precision),
        ]
    )
    return 0
