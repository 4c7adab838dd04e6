"""The command `flashrib export`."""

import argparse
import importlib
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flashrib.export.operators.table import body_names
from flashrib.export.options import IO, OPSETS, PRECISIONS, ExportOptions
from flashrib.runtime.artifacts.bundled import or_bundled_weights
from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.artifacts.kinds import CHECKPOINT, recognise_file
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.cli.options import (
    add_checkpoint_options,
    add_noise_options,
    bundled_names,
    noise_source,
    whole_number,
)
from flashrib.runtime.cli.output import print_json, print_line
from flashrib.runtime.errors import MissingPackageError, UsageError
from flashrib.runtime.sessions.torch_plain import load_trained, require_torch
from flashrib.runtime.stopping import keep_imported

if TYPE_CHECKING:
    from flashrib.export.to_file import ExportReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    defaults = ExportOptions()
    parser.add_argument(
        "checkpoint",
        metavar="CKPT",
        nargs="?",
        type=Path,
        help=f"a checkpoint (.pth, .safetensors), or a bundled model: {bundled_names()}",
    )
    parser.add_argument("-o", "--output", metavar="OUT.onnx", type=Path, required=True, help="the file to write")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    group = parser.add_argument_group("model")
    add_checkpoint_options(group)
    group = parser.add_argument_group("file")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default=defaults.precision,
        help="what the file computes in (default: %(default)s)",
    )
    group.add_argument("--io", choices=IO, default=defaults.io, help="type of input and output (default: %(default)s)")
    size = group.add_mutually_exclusive_group()
    size.add_argument("--tile", metavar="HxW", type=_tile, help="fix the input to this height and width in pixels")
    size.add_argument("--dynamic", action="store_true", help="leave height and width open; this is the default")
    group.add_argument(
        "--batch",
        metavar="N",
        type=whole_number(1, 1024),
        default=defaults.batch,
        help="pictures per run (default: %(default)s)",
    )
    group.add_argument(
        "--opset",
        type=int,
        choices=OPSETS,
        help="ONNX opset; default: 20, and 23 where the precision or the body of attention needs it",
    )
    group.add_argument(
        "--attention",
        choices=body_names(),
        help="body of the attention operator, a function in the file: for ONNX Runtime (default), in standard operators for every runtime"
        " that takes functions, as ONNX's Attention (default of bf16), or as TensorRT before 10.14 wants it",
    )
    group.add_argument(
        "--inline",
        action="store_true",
        help="put attention into the graph as standard operators, for runtimes that take no model-local functions, such as"
        " OpenVINO; no engine is built from such a file",
    )
    group.add_argument("--clamp", action="store_true", help="bound the output to 0..1")
    add_noise_options(group)


def run(arguments: argparse.Namespace) -> int:
    """Turn a checkpoint into an ONNX file, and prove that it computes the same.

    The file has one input `input` and one output `output`, (N, 3, H, W), RGB, 0..1;
    of SST-Real also the input `noise`, unless an option puts it inside.
    It appears once it is valid ONNX and its output in ONNX Runtime agrees with the
    PyTorch network in float32; otherwise the command fails. ONNX Runtime's CPU
    knows no bf16, and rounds little in fp16: there the same graph is run in float32
    with every tensor rounded, an emulation.

    examples:
      flashrib export SSTlight_DFLIP_X2.pth -o 2x_SSTlight_fp32.onnx
      flashrib export weights.safetensors -o 2x_fp16.onnx --precision fp16 --io fp16
      flashrib export weights.pth --arch sst-plus -o tile.onnx --tile 192x192 --batch 4
    """
    _require_packages()
    from flashrib.export.to_file import export_file

    keep_imported()
    options = ExportOptions(
        precision=arguments.precision,
        io=arguments.io,
        tile=arguments.tile,
        batch=arguments.batch,
        opset=arguments.opset,
        attention=arguments.attention,
        clamp=arguments.clamp,
        noise=noise_source(arguments),
        inline=arguments.inline,
    )
    path = or_bundled_weights(arguments.checkpoint)
    _check_files(path, arguments.output)
    network = load_trained(path, arguments.arch, arguments.scale, arguments.key)
    report = export_file(network, arguments.output, options, sha256_of(path))
    if arguments.json:
        about = describe_onnx(arguments.output).to_json()
        print_json({"file": str(arguments.output), **about, **report.to_dict()})
    else:
        _print_report(report)
        print_line(str(arguments.output))
    return 0


def _require_packages() -> None:
    """Raise MissingPackageError where a package of the extra is missing."""
    require_torch("exporting", extra="export")
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingPackageError(error.name or package, "exporting", "export") from error


def _check_files(checkpoint: Path, output: Path) -> None:
    """Refuse files that cannot be what they are named for, before anything is computed."""
    if (kind := recognise_file(checkpoint)) != CHECKPOINT:
        raise UsageError(f"{checkpoint}: is {kind.called} already; export takes a checkpoint (.pth, .safetensors)")
    if output.resolve() == checkpoint.resolve():
        raise UsageError(f"{checkpoint}: is the checkpoint itself; -o must name another file")
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.parent}: make it first")


def _print_report(report: "ExportReport") -> None:
    """Print to standard error what the file is and how it was checked."""
    sizes = report.sizes
    print(
        f"nodes: {sizes['nodes_traced']} traced, {sizes['nodes']} in the file; size:"
        f" {sizes['bytes_traced'] / 1e6:.2f} MB traced in fp32, {sizes['bytes'] / 1e6:.2f} MB in the file",
        file=sys.stderr,
    )
    for check in report.checks:
        how = "in ONNX Runtime" if check.method == "onnxruntime" else "emulated (in float32, every tensor rounded)"
        height, width = check.size
        print(
            f"checked {how} at {height}x{width}: max. abs. error {check.max_abs:.1e}, RMS ratio {check.rms_ratio:.1e}",
            file=sys.stderr,
        )


def _tile(text: str) -> tuple[int, int]:
    """Read "192x256"."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not height x width in pixels, such as 192x192")
    return int(match[1]), int(match[2])
