"""Proof that an exported file is valid and computes what the PyTorch network computes in float32."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from flashrib.export.emulate import emulated
from flashrib.model.network import Network
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.quality.parity_bounds import LEAST_RMS, bound_of
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.onnx_cpu import open_onnx

Pictures = NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        method: "onnxruntime" where ONNX Runtime ran the file itself, "emulation" where it ran the graph in float32 with every
            tensor rounded (`flashrib.export.emulate`).
        size: (H, W) of the pictures.
        max_abs: largest error of a single value, 1 being white.
        rms_ratio: RMS of the error over RMS of the reference, at least `LEAST_RMS`; the worst
            picture of the batch.
    """

    method: str
    size: tuple[int, int]
    max_abs: float
    rms_ratio: float


def check_file(path: Path, network: Network, clamp: bool = False) -> list[CheckResult]:
    """Check a file against its network: validity, shape inference, and the output on noise and a checkerboard.

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
    dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]  # 0: dynamic
    least = network.config.minimum
    pictures = _pictures(dims[0], (dims[2] or least | 1, dims[3] or (least + 2) | 1))
    reference = _reference(network, pictures, clamp)
    results = []
    if precision != "bf16":
        results.append(_compare("onnxruntime", path, pictures, reference, precision))
    if precision != "fp32":
        copy = path.with_name("emulated.onnx")  # in the folder of the external data
        try:
            onnx.save(emulated(onnx.load(path)), copy)
            results.append(_compare("emulation", copy, pictures, reference, precision))
        finally:
            copy.unlink(missing_ok=True)
    return results


def _pictures(batch: int, size: tuple[int, int]) -> Pictures:
    """Return (batch, 3, H, W): noise in the upper half, and black and white pixels in a checkerboard, the steepest there is, below.

    One picture holds both, because the reference on the CPU is most of the time that the export of a large network takes.
    """
    pictures = np.random.default_rng(0).random((batch, 3, *size), dtype=np.float32)
    rows, columns = np.indices(size)
    board = ((rows + columns) % 2).astype(np.float32)
    pictures[:, :, size[0] // 2 :] = board[size[0] // 2 :]
    return pictures


def _reference(network: Network, pictures: Pictures, clamp: bool) -> Pictures:
    with torch.inference_mode():
        y = network.reference(torch.from_numpy(pictures))
        result: Pictures = (y.clamp(0.0, 1.0) if clamp else y).numpy()
    return result


def _compare(method: str, path: Path, pictures: Pictures, reference: Pictures, precision: str) -> CheckResult:
    output = _run(path, pictures)
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
    return CheckResult(method, (pictures.shape[2], pictures.shape[3]), max_abs, ratio)


def _run(path: Path, pictures: Pictures) -> Pictures:
    try:
        session = open_onnx(path)
        half = session.get_inputs()[0].type == "tensor(float16)"
        (output,) = session.run(["output"], {"input": pictures.astype(np.float16 if half else np.float32)})
    except Exception as error:
        raise SessionError(f"ONNX Runtime cannot run the exported file: {' '.join(str(error).split())}") from error
    result: Pictures = output.astype(np.float32)
    return result
