"""Proof that an exported file is valid and computes what the PyTorch network computes in float32."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from flashrib.export.emulate import emulated
from flashrib.model.network import Network
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.quality.parity_bounds import LEAST_RMS, bound_of
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.onnx_cpu import open_onnx

Values = NDArray[Any]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        method: "onnxruntime" where ONNX Runtime ran the file itself, "emulation" where it ran the graph in float32 with every
            tensor rounded (`flashrib.export.emulate`).
        size: (H, W) of the images; the last two axes of the first input where that is none.
        max_abs: largest error of a single value, 1 being white.
        rms_ratio: RMS of the error over RMS of the reference, at least `LEAST_RMS`; the worst image of the batch.
    """

    method: str
    size: tuple[int, int]
    max_abs: float
    rms_ratio: float


def check_file(path: Path, network: Network, clamp: bool = False) -> list[CheckResult]:
    """Check a file against its network: validity, shape inference, and the output on noise and a checkerboard, for every input.

    fp32 is run as it is; fp16 as it is and in emulation, because ONNX Runtime's CPU hides overflow; bf16 in emulation alone.

    Args:
        path: of the ONNX file.
        network: in training form, float32.
        clamp: True where the file bounds its output to 0..1.

    Raises:
        ModelError: the file is not valid, or its output is not finite or not within the bound of its precision.
        SessionError: ONNX Runtime cannot run it.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the exported file is not valid ONNX: {error}") from error
    model = onnx.load(path, load_external_data=False)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    precision = ModelInfo.from_properties(properties, path.name).precision
    inputs = _inputs(model, network)
    reference = _reference(network, inputs, clamp)
    results = []
    if precision != "bf16":
        results.append(_compare("onnxruntime", path, inputs, reference, precision))
    if precision != "fp32":
        copy = path.with_name("emulated.onnx")  # in the folder of the external data
        try:
            onnx.save(emulated(onnx.load(path)), copy)
            results.append(_compare("emulation", copy, inputs, reference, precision))
        finally:
            copy.unlink(missing_ok=True)
    return results


def _inputs(model: ModelProto, network: Network) -> dict[str, Values]:
    """Return a value for every input of a file, in order: images, noise, and zeros for integers; open sides small and odd."""
    least = network.config.minimum
    picture = model.graph.input[0].type.tensor_type.shape.dim
    fixed = [dim.dim_value for dim in picture[2:4]] if len(picture) == 4 else [0, 0]
    sides = network.config.open_sizes(fixed[0] or least | 1, fixed[1] or (least + 2) | 1)
    known = {tensor.name: tensor for tensor in network.config.inputs()}
    values: dict[str, Values] = {}
    for seed, end in enumerate(model.graph.input):
        tensor = known[end.name]
        open_sides = dict(zip(tensor.shape, tensor.sizes(**sides), strict=True))
        axes = zip(end.type.tensor_type.shape.dim, tensor.shape, strict=True)
        shape = tuple(dim.dim_value or open_sides[axis] for dim, axis in axes)
        if not tensor.dtype.startswith("float"):
            values[end.name] = np.zeros(shape, tensor.dtype)
        elif len(shape) == 4:
            values[end.name] = _images(seed, shape)
        else:
            values[end.name] = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return values


def _images(seed: int, shape: tuple[int, ...]) -> Values:
    """Return (B, C, H, W): noise in the upper half, and black and white pixels in a checkerboard, the steepest there is, below.

    One image holds both, because the reference on the CPU is most of the time that the export of a large network takes.
    """
    images = np.random.default_rng(seed).random(shape, dtype=np.float32)
    rows, columns = np.indices(shape[2:])
    board = ((rows + columns) % 2).astype(np.float32)
    images[:, :, shape[2] // 2 :] = board[shape[2] // 2 :]
    return images


def _reference(network: Network, inputs: Mapping[str, Values], clamp: bool) -> Values:
    with torch.inference_mode():
        y = network.reference(*(torch.from_numpy(value) for value in inputs.values()))
        result: Values = (y.clamp(0.0, 1.0) if clamp else y).numpy()
    return result


def _compare(method: str, path: Path, inputs: Mapping[str, Values], reference: Values, precision: str) -> CheckResult:
    output = _run(path, inputs)
    if output.shape != reference.shape:
        raise ModelError(f"the exported file gives {output.shape}, the network {reference.shape}")
    if not np.isfinite(output).all():
        raise ModelError(
            f"the output of the exported file is not finite ({int((~np.isfinite(output)).sum())} of {output.size} values,"
            f" {method}): {precision} overflows in this network; choose a --precision of more range, bf16 or fp32"
        )
    max_abs = float(np.abs(output.astype(np.float64) - reference).max())
    ratio = max(rms_ratio(truth, one, LEAST_RMS) for truth, one in zip(reference, output, strict=True))
    bound = bound_of(precision)
    for what, seen, most in (("max. abs. error", max_abs, bound.max_abs), ("RMS ratio", ratio, bound.rms_ratio)):
        if most is not None and seen > most:
            raise ModelError(
                f"the exported file differs from the network in float32: {what} {seen:.3g} ({method}), but the bound of"
                f" {precision} is {most:g}: choose a higher --precision"
            )
    *_, height, width = next(iter(inputs.values())).shape
    return CheckResult(method, (height, width), max_abs, ratio)


def _run(path: Path, inputs: Mapping[str, Values]) -> Values:
    try:
        session = open_onnx(path)
        half = {end.name for end in session.get_inputs() if end.type == "tensor(float16)"}
        feeds = {name: value.astype(np.float16) if name in half else value for name, value in inputs.items()}
        (output,) = session.run(["output"], feeds)
    except Exception as error:
        raise SessionError(f"ONNX Runtime cannot run the exported file: {' '.join(str(error).split())}") from error
    result: Values = output.astype(np.float32)
    return result
