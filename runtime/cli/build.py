"""The command `flashrib build`."""

import argparse
import dataclasses
import importlib
import time
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.engine import EngineManifest
from flashrib.runtime.cli.build_package import add_package_options, check_no_package_options, run_build_package
from flashrib.runtime.cli.options import tile_sides, whole_number
from flashrib.runtime.cli.output import BuildBar, print_json, print_table
from flashrib.runtime.errors import MissingPackageError
from flashrib.runtime.nvidia.flavours import FLAVOURS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model", metavar="MODEL", type=Path, help="an ONNX file made by flashrib, in fp16 or bf16; aoti: a checkpoint"
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, required=True, help="the engine or package to write"
    )
    parser.add_argument(
        "--flavour",
        choices=(*FLAVOURS, "aoti"),
        required=True,
        help="rtx: TensorRT-RTX, for GeForce and RTX cards, needs no GPU; tensorrt: TensorRT, on the GPU that it is for;"
        " aoti: PyTorch's AOTInductor, on the GPU that it is for",
    )
    parser.add_argument(
        "--target",
        metavar="SM,...",
        type=_targets,
        default=(),
        help="rtx: compute capabilities such as sm86,sm89,sm120, or current; default: all from 8.0 on that TensorRT-RTX supports."
        " tensorrt: current (default), or ampere+ for all from 8.0 on. aoti: current (default), or cpu",
    )
    sizes = parser.add_argument_group("sizes of the input, height x width in pixels")
    sizes.add_argument(
        "--opt", metavar="HxW", type=_size, help="the size it is made for; default: whole windows, about 256x256"
    )
    sizes.add_argument("--min", metavar="HxW", type=_size, help="the smallest; default: that of --opt")
    sizes.add_argument("--max", metavar="HxW", type=_size, help="the largest; default: that of --opt")
    parser.add_argument(
        "--workspace", metavar="MB", type=whole_number(1, 1 << 20), help="memory of the GPU to plan with; default: all"
    )
    parser.add_argument(
        "--timing-cache",
        metavar="FILE",
        type=Path,
        help="keeps measurements from one build to the next (tensorrt alone)",
    )
    parser.add_argument(
        "--version-compatible", action="store_true", help="let later versions of TensorRT load it (tensorrt alone)"
    )
    add_package_options(parser)
    parser.add_argument(
        "--attention",
        choices=("native", "plugin"),
        default="native",
        help="native: TensorRT's own fused attention; plugin: flashrib's kernel, compiled into the engine (tensorrt alone, not 10.14)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document: the manifest")


def run(arguments: argparse.Namespace) -> int:
    """Build a TensorRT engine from an ONNX file, or a package of AOTInductor from a checkpoint.

    The engine and its manifest OUT.json belong together: the manifest says what the
    engine is and for whom, and holds the hash that is verified whenever it is
    loaded. A build fails if TensorRT does not fuse the attention of every layer. The
    same engine is built once and then comes from the cache. With one size alone,
    which is the default, an engine is at its fastest; pictures are cut into tiles.
    A package has a manifest of the same kind, takes one size, --opt (default: about
    768x768), and runs with the version of PyTorch that built it.

    examples:
      flashrib build sst_fp16.onnx -o sst.engine --flavour rtx
      flashrib build sst_fp16.onnx -o sst.engine --flavour rtx --target sm89,sm120 --opt 512x512
      flashrib build sst_fp16.onnx -o sst.engine --flavour tensorrt --timing-cache sst.timing
      flashrib build sst_fp16.onnx -o sst.engine --flavour tensorrt --attention plugin
      flashrib build sst.safetensors -o sst.pt2 --flavour aoti --opt 1024x1024
    """
    if arguments.flavour == "aoti":
        return run_build_package(arguments)
    check_no_package_options(arguments)
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
        arguments.attention,
    )
    started = time.perf_counter()
    with BuildBar() as bar:
        manifest, cached = build_engine(
            arguments.model, arguments.output, options, timing_cache=arguments.timing_cache, progress=bar.report
        )
    seconds = round(time.perf_counter() - started, 1)
    if arguments.json:
        about = {"engine": str(arguments.output), "cached": cached, "seconds": seconds, **dataclasses.asdict(manifest)}
        print_json(about)
    else:
        print_table(_rows(arguments.output, manifest, cached, seconds))
    return 0


def _rows(output: Path, manifest: EngineManifest, cached: bool, seconds: float) -> list[tuple[str, str]]:
    smallest, usual, largest = (f"{height}x{width}" for height, width in manifest.shapes)
    made = f"from the cache, built in {manifest.build_seconds:.1f} s" if cached else f"in {seconds:.1f} s"
    return [
        ("engine", f"{output}, {made}"),
        ("built by", f"{FLAVOURS[manifest.flavour].product} {manifest.version}"),
        ("runs on", ", ".join(manifest.targets) or "every GPU that it supports by default"),
        ("sizes", usual if manifest.fixed_size else f"{smallest} to {largest}, best at {usual}"),
        ("precision", manifest.precision),
        ("scratch memory", f"{manifest.scratch_bytes / 1e6:.0f} MB: attention is fused in every layer"),
        ("not run yet", f"on the GPU: flashrib verify REFERENCE {output}"),
    ]


def _targets(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _size(text: str) -> Any:
    sides = tile_sides(text)
    if isinstance(sides, int):
        raise argparse.ArgumentTypeError(f"{text!r} is not height x width such as 256x320")
    return sides
