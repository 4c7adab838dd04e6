"""ONNX file and pictures -> quantized ONNX file with its report."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import onnx
from onnx import ModelProto

from flashrib.calibration.apply import with_layers
from flashrib.calibration.choose import choose, work
from flashrib.calibration.formats import FORMATS
from flashrib.calibration.graph import run, runner, with_outputs
from flashrib.calibration.layers import Layer, find_layers
from flashrib.calibration.options import SENSITIVITY_TILES, CalibrationOptions
from flashrib.calibration.placement import placement_faults
from flashrib.calibration.plan import plan_layers
from flashrib.calibration.quality import Judge, Quality
from flashrib.calibration.report import Report
from flashrib.calibration.sensitivity import layer_costs
from flashrib.calibration.state import State
from flashrib.calibration.statistics import Runs, feed, input_type
from flashrib.calibration.tiles import TileSet, draw_tiles
from flashrib.export.save import hash_of_initializers, save_onnx
from flashrib.runtime.artifacts.files import sha256_of, write_whole
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import ModelError, UsageError
from flashrib.runtime.progress import PhaseProgress, Progress

RESTS = ("fp32", "fp16")  # what the model may compute in; ONNX Runtime's CPU has no bf16 to measure with
LEAST_SIDE = 64


def calibrate(
    source: Path,
    pictures: Path,
    output: Path,
    options: CalibrationOptions,
    progress: PhaseProgress = lambda part, phase: None,
) -> Report:
    """Quantize a model as far as the budget allows, and write `output`, `output`.json and `output`.png.

    What was found out about the layers is kept in a file beside `output` until the end, so that the same call goes on after an
    interruption.

    Args:
        source: an ONNX file made by flashrib in fp32 or fp16, which everything that is not quantized keeps computing in.
        pictures: folder of high-resolution pictures; see `draw_tiles`.
        output: the quantized file; its name ends in .onnx.
        options: see there.
        progress: called with the fraction done and the current phase.

    Raises:
        UsageError: options, or a file name, that are invalid.
        PictureError: see `draw_tiles`.
        ModelError: the model is no file of flashrib's, quantized already, of another precision or batch, not finite, or no layer fits
            the budget.
        FlashribError: a file cannot be written.
    """
    metadata = _described(source, output)
    model = _loaded(source)
    layers = find_layers(model)
    candidates = [layer for layer in layers if not layer.kept]
    side = _side(metadata, options)
    tiles = draw_tiles(pictures, metadata.scale, side, options.tiles, options.held_out, options.seed)
    phase = _phases(options, len(candidates), progress)

    runs = Runs(model, tiles.calibration, options.threads)
    plans = plan_layers(runs, candidates, options.mode, options.method, phase("ranges"))

    def quantized(of: ModelProto, chosen: Sequence[Layer]) -> ModelProto:
        return with_layers(of, [plans[layer.name] for layer in chosen], FORMATS[options.mode])

    judge = Judge(model, tiles.held_out, metadata.scale, options.threads)
    macs = count_work(model, layers, tiles, options.threads)
    state = State(output, _key(source, tiles, options))
    costs = layer_costs(model, candidates, quantized, judge, SENSITIVITY_TILES, state, phase("layers"))

    def measure(chosen: Sequence[Layer]) -> Quality:
        return judge.judge_model(quantized(model, chosen))

    choice = choose(candidates, costs, macs, options.budget, measure, phase("choice"))
    report = Report(options, tuple(layers), macs, costs, choice, judge.psnr, tiles, metadata.precision)
    chosen = {layer.name for layer in choice.layers}
    result = quantized(model, [layer for layer in candidates if layer.name in chosen])
    describe(result, metadata, options.mode, report)
    save_onnx(result, output, check=check_file)
    write_whole(output.with_name(f"{output.name}.json"), (json.dumps(report.document(), indent=2) + "\n").encode())
    write_whole(output.with_name(f"{output.name}.png"), report.plot())
    state.remove()
    return report


def describe(model: ModelProto, metadata: ModelInfo, mode: str, report: Report) -> None:
    """Write the metadata of a quantized file."""
    about = dataclasses.replace(
        metadata,
        precision=mode,
        calibration=report.summary(),
        version=version("flashrib"),
        weights_sha256=hash_of_initializers(model),
    )
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, about.to_properties())
    model.producer_name, model.producer_version = "flashrib", version("flashrib")


def check_file(path: Path) -> None:
    """Raise ModelError where a quantized file is not valid, or a pair stands where TensorRT does not fuse it."""
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ModelError(f"the quantized file is not valid ONNX: {' '.join(str(error).split())}") from error
    if faults := placement_faults(onnx.load(path)):
        raise ModelError(f"the quantized file breaks a rule of placement ({len(faults)} in all): {faults[0]}")


def count_work(model: ModelProto, layers: Sequence[Layer], tiles: TileSet, threads: int | None) -> dict[str, int]:
    """MACs of every product outside of attention for one tile, by name."""
    names = [layer.output for layer in layers] + [layer.weight for layer in layers if not layer.depth]
    x = feed(tiles.held_out[0]).astype(input_type(model))
    shapes = {
        name: value.shape for name, value in run(runner(with_outputs(model, names), threads), {"input": x}).items()
    }
    return work(layers, shapes)


def _described(source: Path, output: Path) -> ModelInfo:
    metadata = describe_onnx(source)
    external_files(source)
    check_weights(source, metadata)
    if metadata.noise:
        raise ModelError(
            f"{source}: takes noise beside the picture, which calibration does not give it: use it as it is"
        )
    if metadata.precision in FORMATS:
        raise ModelError(
            f"{source}: is quantized already ({metadata.precision}): calibrate the file that it was made from"
        )
    if metadata.precision not in RESTS:
        raise ModelError(
            f"{source}: computes in {metadata.precision}, which ONNX Runtime cannot run on the CPU to measure it: export it with"
            " --precision fp16 or fp32"
        )
    if metadata.batch != 1:
        raise ModelError(f"{source}: takes {metadata.batch} pictures at a time: export it with --batch 1")
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"{output}: the quantized file is an ONNX file, so its name must end in .onnx")
    if not output.parent.is_dir():
        raise UsageError(f"{output}: there is no folder {output.parent}: make it first")
    if output.resolve() == source.resolve():
        raise UsageError(f"{output}: is the model itself; -o must name another file")
    return metadata


def _side(metadata: ModelInfo, options: CalibrationOptions) -> int:
    """Side of a tile in pixels of the input."""
    side = options.side or -(-LEAST_SIDE // metadata.alignment) * metadata.alignment
    if side < metadata.minimum:
        raise UsageError(f"a tile of {side}: {metadata.architecture} needs at least {metadata.minimum} pixels per side")
    return side


def _phases(options: CalibrationOptions, candidates: int, progress: PhaseProgress) -> Callable[[str], Progress]:
    """Return what makes, of a phase's name, the callback with its steps done and all."""
    # In runs of the whole network: ranges twice per tile, a layer about half a run per tile, and a dozen measurements.
    parts = {
        "ranges": 2.0 * options.tiles,
        "layers": 0.5 * SENSITIVITY_TILES * candidates,
        "choice": 12.0 * options.held_out,
    }
    total = sum(parts.values())

    def phase(name: str) -> Progress:
        before = sum(list(parts.values())[: list(parts).index(name)])
        return lambda done, steps: progress((before + parts[name] * done / steps) / total, name)

    return phase


def _loaded(source: Path) -> ModelProto:
    try:
        model = onnx.load(source)
    except Exception as error:  # protobuf's and onnx's own
        raise ModelError(f"{source}: not an ONNX file, or a damaged one: {' '.join(str(error).split())}") from error
    static = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[2:]]
    if any(static):
        raise ModelError(
            f"{source}: takes {static[0]}x{static[1]} pixels only: calibrate a file of any size (export it without --tile)"
        )
    return model


def _key(source: Path, tiles: TileSet, options: CalibrationOptions) -> str:
    """What the costs of layers depend on: everything but the budget."""
    about = dataclasses.replace(options, budget=1.0, threads=None)
    drawn = [(t.picture, t.row, t.column) for t in (*tiles.calibration, *tiles.held_out)]
    parts = [
        sha256_of(source),
        tiles.sha256,
        drawn,
        dataclasses.asdict(about),
        version("flashrib"),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
