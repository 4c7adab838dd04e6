"""INT8 and FP8: quality of calibrated and of naive files, and the time of INT8 on the CPU.

    python benchmarks/calibration.py quality MODEL.onnx PICTURES SET... [--mode int8] [--naive]
    python benchmarks/calibration.py steps MODEL.onnx PICTURES [--mode int8]
    python benchmarks/calibration.py time MODEL.onnx INT8.onnx [--side 256]

`quality` calibrates MODEL.onnx on PICTURES and evaluates it on each SET (NAME_HR.* beside NAME_LR.*), beside the unquantized model and,
with --naive, beside two files of naive quantization: every product in 8 bits with the largest values as ranges, weights rounded to the
nearest, no centring and no corrected bias; and what onnxruntime.quantization.quantize_static makes of everything by default.
`steps` quantizes every candidate at once, and prints the error on the held-out tiles with and without the steps of calibration, and with
every method of finding ranges.
`time` runs both files in turn in ONNX Runtime and prints medians and where the time goes.
"""

import argparse
import collections
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx

from flashrib.calibration import plan
from flashrib.calibration.apply import with_layers
from flashrib.calibration.formats import FORMATS
from flashrib.calibration.layers import find_layers
from flashrib.calibration.options import CalibrationOptions
from flashrib.calibration.plan import plain_plans
from flashrib.calibration.quality import Judge
from flashrib.calibration.quantize import LEAST_SIDE, calibrate
from flashrib.calibration.ranges import METHODS
from flashrib.calibration.statistics import Runs, feed
from flashrib.calibration.tiles import TileSet, draw_tiles
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import FlashribError
from flashrib.runtime.quality.evaluate import average, evaluate, find_pairs
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession

BUDGETS = {"int8": 0.05, "fp8": 0.03}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    quality = commands.add_parser("quality")
    quality.add_argument("model", type=Path)
    quality.add_argument("pictures", type=Path)
    quality.add_argument("sets", type=Path, nargs="+")
    quality.add_argument("--mode", choices=("int8", "fp8"), default="int8")
    quality.add_argument("--method", default="minmax")
    quality.add_argument("--naive", action="store_true")
    quality.set_defaults(run=measure_quality)
    steps = commands.add_parser("steps")
    steps.add_argument("model", type=Path)
    steps.add_argument("pictures", type=Path)
    steps.add_argument("--mode", choices=("int8", "fp8"), default="int8")
    steps.set_defaults(run=measure_steps)
    timing = commands.add_parser("time")
    timing.add_argument("model", type=Path)
    timing.add_argument("quantized", type=Path)
    timing.add_argument("--side", type=int, default=256)
    timing.add_argument("--rounds", type=int, default=3)
    timing.set_defaults(run=measure_time)
    arguments = parser.parse_args()
    arguments.run(arguments)


def measure_quality(arguments: argparse.Namespace) -> None:
    print("| file | MACs in 8 bit | " + " | ".join(f"{folder}, dB | drop, dB" for folder in arguments.sets) + " |")
    print("|---" * (2 + 2 * len(arguments.sets)) + "|")
    base = [_psnr(arguments.model, folder) for folder in arguments.sets]
    _row("unquantized", 0.0, base, base)
    mode = arguments.mode
    metadata = describe_onnx(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.onnx"
        options = CalibrationOptions(mode, arguments.method, BUDGETS[mode])
        report = calibrate(arguments.model, arguments.pictures, path, options)
        _row(f"{mode}, calibrated", report.choice.point.share, [_psnr(path, f) for f in arguments.sets], base)
        if not arguments.naive:
            return
        side = -(-LEAST_SIDE // metadata.alignment) * metadata.alignment
        drawn = draw_tiles(arguments.pictures, metadata.scale, side, 16, 8, 0)
        model = onnx.load(arguments.model)
        layers = [layer for layer in find_layers(model) if layer.depth and layer.op != "Gemm"]
        plans = plain_plans(Runs(model, drawn.calibration), layers, mode)
        _save(with_layers(model, list(plans.values()), FORMATS[mode]), metadata, path)
        _row(f"{mode}, naive: every product", 1.0, [_psnr(path, f) for f in arguments.sets], base)
        if mode == "int8":
            _default_of_the_library(arguments.model, drawn, path)
            _save(onnx.load(path), metadata, path)
            _row("int8, quantize_static's default", 1.0, [_psnr(path, f) for f in arguments.sets], base)


def measure_steps(arguments: argparse.Namespace) -> None:
    metadata, model = describe_onnx(arguments.model), onnx.load(arguments.model)
    side = -(-LEAST_SIDE // metadata.alignment) * metadata.alignment
    drawn = draw_tiles(arguments.pictures, metadata.scale, side, 16, 8, 0)
    layers = [layer for layer in find_layers(model) if not layer.kept]
    judge = Judge(model, drawn.held_out, metadata.scale, None)
    print("| all candidates in 8 bits | error of luma | drop, dB | expected drop, dB |\n|---|---|---|---|")

    def row(name: str, plans: dict[str, plan.LayerPlan]) -> None:
        quality = judge.judge_model(with_layers(model, list(plans.values()), FORMATS[arguments.mode]))
        print(f"| {name} | {quality.error:.4f} | {quality.drop:.4f} | {quality.expected:.4f} |", flush=True)

    def planned(method: str = "minmax") -> dict[str, plan.LayerPlan]:
        return plan.plan_layers(Runs(model, drawn.calibration), layers, arguments.mode, method)

    row("nothing of it", plan.plain_plans(Runs(model, drawn.calibration), layers, arguments.mode))
    with mock.patch.object(plan, "_recentring", return_value=plan.Recentring(None, None)):
        row("errors of weights cancel, biases corrected", planned())
    for method in METHODS:
        row(f"and activations centred and smoothed, {method}", planned(method))


def measure_time(arguments: argparse.Namespace) -> None:
    x = np.random.default_rng(0).random((1, 3, arguments.side, arguments.side), dtype=np.float32)
    sessions = {path: _profiled(path) for path in (arguments.model, arguments.quantized)}
    for clock in (
        time.perf_counter,
        time.process_time,
    ):  # the second counts all threads, and not what else the machine did
        seconds: dict[Path, list[float]] = {path: [] for path in sessions}
        for _ in range(arguments.rounds + 1):
            for path, session in sessions.items():
                started = clock()
                session.run(None, {"input": x})
                seconds[path].append(clock() - started)
        first, second = (statistics.median(values[1:]) for values in seconds.values())  # the first warms up
        what = f"{arguments.side}x{arguments.side}, {clock.__name__}"
        print(f"{what}: {first:.2f} s and {second:.2f} s, ratio {first / second:.3f}", flush=True)
    for path, session in sessions.items():
        spent: collections.Counter[str] = collections.Counter()
        profile = Path(session.end_profiling())
        for event in json.loads(profile.read_text()):
            if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
                spent[event["args"]["op_name"]] += event["dur"]
        profile.unlink()
        total = sum(spent.values())
        print(f"{path}: " + ", ".join(f"{op} {100 * part / total:.1f} %" for op, part in spent.most_common(12)))


def _profiled(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting would count as time of the CPU
    options.profile_file_prefix = str(Path(tempfile.gettempdir()) / path.stem)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _default_of_the_library(model: Path, drawn: TileSet, path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(drawn.calibration)

        def get_next(self) -> dict[str, Any] | None:
            tile = next(self.left, None)
            return {"input": feed(tile)} if tile is not None else None

    quantize_static(
        str(model), str(path), Reader(), per_channel=True, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8
    )


def _save(model: onnx.ModelProto, metadata: ModelInfo, path: Path) -> None:
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata.to_properties())
    onnx.save(model, path)


def _psnr(path: Path, folder: Path) -> float:
    session = OnnxRuntimeSession(path)
    try:
        return average(list(evaluate(session, find_pairs(folder)))).psnr
    except FlashribError as error:
        print(f"{path}: {error}")
        return float("nan")
    finally:
        session.close()


def _row(name: str, share: float, seen: list[float], base: list[float]) -> None:
    cells = " | ".join(f"{value:.3f} | {before - value:.3f}" for value, before in zip(seen, base, strict=True))
    print(f"| {name} | {100 * share:.1f} % | {cells} |", flush=True)


if __name__ == "__main__":
    main()
