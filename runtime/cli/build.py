"""The command `flashrib build`."""

import argparse
from pathlib import Path
from typing import Any

from flashrib.export.engine.options import ATTENTION
from flashrib.export.package.options import PRECISIONS
from flashrib.runtime.cli.builders import BUILDERS, check_options
from flashrib.runtime.cli.options import add_checkpoint_options, add_noise_options, tile_sides, whole_number
from flashrib.runtime.cli.output import print_json, print_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="an ONNX file made by flashrib, in fp16 or bf16; aoti: a checkpoint; onnxruntime: either",
    )
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, required=True, help="the engine, package or ONNX file to write"
    )
    parser.add_argument(
        "--flavour",
        choices=tuple(BUILDERS),
        required=True,
        help="; ".join(f"{name}: {row.help}" for name, row in BUILDERS.items()),
    )
    parser.add_argument(
        "--target",
        metavar="SM,...",
        type=_targets,
        default=(),
        help="rtx: compute capabilities such as sm86,sm89,sm120, or current; default: all from 8.0 on that TensorRT-RTX supports."
        " tensorrt: current (default), or ampere+ for all from 8.0 on. aoti: current (default), or cpu. onnxruntime: as rtx;"
        " default: sm80,sm86,sm89,sm90,sm120",
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
    group = parser.add_argument_group("what is built from a checkpoint (aoti and onnxruntime)")
    group.add_argument("--precision", choices=PRECISIONS, help="what it computes in; default: fp16")
    add_checkpoint_options(group)
    add_noise_options(group)
    parser.add_argument(
        "--attention",
        choices=ATTENTION,
        help="native (default): TensorRT's own fused attention; plugin: flashrib's kernel, in the engine (tensorrt alone, not 10.14)",
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
    For ONNX Runtime, OUT.onnx comes with the library OUT.so of custom operators: from
    an ONNX file those of attention, from a checkpoint also the fused passes between.
    Any size runs, unless --opt names one; without the library the file runs too.

    examples:
      flashrib build sst_fp16.onnx -o sst.engine --flavour rtx
      flashrib build sst_fp16.onnx -o sst.engine --flavour rtx --target sm89,sm120 --opt 512x512
      flashrib build sst_fp16.onnx -o sst.engine --flavour tensorrt --timing-cache sst.timing
      flashrib build sst_fp16.onnx -o sst.engine --flavour tensorrt --attention plugin
      flashrib build sst.safetensors -o sst.pt2 --flavour aoti --opt 1024x1024
      flashrib build sst.safetensors -o sst.onnx --flavour onnxruntime --target sm89
    """
    builder = BUILDERS[arguments.flavour]
    check_options(builder, arguments)
    built = builder.build(arguments)
    if arguments.json:
        print_json(built.document)
    else:
        print_table(built.rows)
    return 0


def _targets(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _size(text: str) -> Any:
    sides = tile_sides(text)
    if isinstance(sides, int):
        raise argparse.ArgumentTypeError(f"{text!r} is not height x width such as 256x320")
    return sides
