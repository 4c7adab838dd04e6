"""The command `flashrib calibrate`."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flashrib.runtime.artifacts.bundled import or_bundled_model
from flashrib.runtime.cli.options import whole_number
from flashrib.runtime.cli.output import BuildBar, print_json, print_line, print_table
from flashrib.runtime.errors import MissingPackageError
from flashrib.runtime.stopping import keep_imported

if TYPE_CHECKING:
    from flashrib.calibration.report import Report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("model", metavar="MODEL.onnx", type=Path, help="an ONNX file made by flashrib, in fp32 or fp16")
    parser.add_argument(
        "--pictures", metavar="DIR", type=Path, required=True, help="high-resolution pictures, at least 8, better 100"
    )
    parser.add_argument("-o", "--output", metavar="OUT.onnx", type=Path, required=True, help="the file to write")
    parser.add_argument(
        "--mode",
        choices=("int8", "fp8"),
        required=True,
        help="int8: ONNX Runtime, TensorRT; fp8 (E4M3): TensorRT-RTX, TensorRT",
    )
    parser.add_argument(
        "--method",
        choices=("minmax", "percentile", "entropy", "mse"),
        default="minmax",
        help="how ranges of activations are found (default: %(default)s)",
    )
    parser.add_argument(
        "--budget",
        metavar="N[dB]",
        type=decibels,
        default=0.05,
        help="largest loss of PSNR on held-out pictures; what does not fit stays in 16 or 32 bit (default: 0.05dB)",
    )
    parser.add_argument(
        "--tiles", metavar="N", type=whole_number(1, 4096), default=16, help="calibration tiles (default: %(default)s)"
    )
    parser.add_argument(
        "--held-out",
        metavar="N",
        type=whole_number(2, 1024),
        default=8,
        help="pictures to measure quality on, a tile of each (default: %(default)s)",
    )
    parser.add_argument(
        "--tile",
        metavar="N",
        type=whole_number(1, 4096),
        help="side of a tile in pixels of the input; default: 64, or 96 in plus models",
    )
    parser.add_argument(
        "--seed", metavar="N", type=whole_number(0), default=0, help="of the choice of tiles (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--threads", metavar="N", type=whole_number(1, 1024), help="threads on the CPU; default: all cores"
    )


def run(arguments: argparse.Namespace) -> int:
    """Quantize an ONNX file to INT8 or FP8, as far as a budget of PSNR allows.

    Measures on held-out pictures what every layer costs when it alone is quantized,
    and quantizes the longest row of layers, cheapest work first, whose loss is
    within the budget. Attention and the first and last layers keep their
    precision. OUT.onnx.json and OUT.onnx.png hold the order of the layers and the
    curve. If it is interrupted, the same command goes on where it was.

    examples:
      flashrib calibrate 2x_SSTlight_fp32.onnx --pictures photos/ -o 2x_SSTlight_int8.onnx --mode int8
      flashrib calibrate 2x_fp16.onnx --pictures photos/ -o 2x_fp8.onnx --mode fp8 --budget 0.03dB
    """
    try:
        import onnx  # noqa: F401

        from flashrib.calibration.options import CalibrationOptions
        from flashrib.calibration.quantize import calibrate
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "onnx", "calibrating", "calibration") from error

    keep_imported()
    options = CalibrationOptions(
        mode=arguments.mode,
        method=arguments.method,
        budget=arguments.budget,
        tiles=arguments.tiles,
        held_out=arguments.held_out,
        side=arguments.tile,
        seed=arguments.seed,
        threads=arguments.threads,
    )
    started = time.perf_counter()
    with BuildBar() as bar:
        report = calibrate(or_bundled_model(arguments.model), arguments.pictures, arguments.output, options, bar.report)
    seconds = round(time.perf_counter() - started, 1)
    if arguments.json:
        print_json({"file": str(arguments.output), "seconds": seconds, **report.document()})
        return 0
    _print(report, arguments.output, seconds)
    return 0


def decibels(text: str) -> float:
    """Read "0.05dB" or "0.05"."""
    number = text.strip().removesuffix("dB").strip()
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a loss above 0 in dB, such as 0.05dB")
    return value


def _print(report: "Report", output: Path, seconds: float) -> None:
    total = sum(report.macs.values())
    print_line(f"{'place':>5}  {'layer':<32}{'alone, dB':>11}{'error':>11}{'MACs':>8}  kept because")
    place = {layer.name: index for index, layer in enumerate(report.choice.order, 1)}
    chosen = {layer.name for layer in report.choice.layers}
    for layer in [*report.choice.order, *(layer for layer in report.layers if layer.kept)]:
        share = f"{100 * report.macs[layer.name] / total:.2f} %"
        if layer.kept:
            print_line(f"{'':>5}  {layer.name:<32}{'':>22}{share:>8}  {layer.kept}")
            continue
        cost = report.costs[layer.name]
        why = "" if layer.name in chosen else "over the budget"
        print_line(
            f"{place[layer.name]:>5}  {layer.name:<32}{cost.drop:>11.5f}{cost.error:>11.2e}{share:>8}  {why}".rstrip()
        )
    print_line("")
    print_line(f"{'layers':>6}{'MACs in 8 bit':>15}{'PSNR, dB':>11}{'drop, dB':>11}{'loss, dB':>11}")
    for point in report.choice.curve:
        mark = "  chosen" if point.layers == report.choice.chosen else ""
        quality = point.quality
        print_line(
            f"{point.layers:>6}{100 * point.share:>13.1f} %{quality.psnr:>11.4f}{quality.drop:>11.5f}{quality.loss:>11.5f}{mark}"
        )
    print_line("")
    point = report.choice.point
    rows = [
        ("file", f"{output}, in {seconds:.0f} s"),
        ("report", f"{output}.json, {output}.png"),
        (
            "quantized",
            f"{len(chosen)} of {len(report.layers)} products, {100 * point.share:.1f} % of the MACs outside of attention",
        ),
        (
            "loss",
            f"{point.quality.loss:.4f} dB on {report.options.held_out} held-out tiles, of a budget of {report.options.budget:g} dB",
        ),
    ]
    print_table(rows)
