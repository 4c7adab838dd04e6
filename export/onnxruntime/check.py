"""What was built, run by its bodies and on this machine's GPU, and compared with what it was made from."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from flashrib.export.check import check_file
from flashrib.model.network import Network
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.library import LibraryManifest, check_targets
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.noise import padded
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.quality.parity_bounds import LEAST_RMS, bound_of
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.onnx_cpu import LOG_FATAL_ONLY, open_onnx
from flashrib.runtime.sessions.providers import PROVIDERS, add_provider, check_placement, has_provider, load_onnxruntime

Values = NDArray[Any]

_FP32 = 1e-4  # most RMS ratio of fp32, whose bound is one of single values in pictures


def check_bodies(path: Path, network: Network | None, model: Path) -> None:
    """Run the file by its bodies, and compare it with the network in float32, or with the ONNX file `model` that it was made from.

    Raises:
        ModelError: it computes something else, or is not valid.
        SessionError: ONNX Runtime cannot run it.
    """
    if network is not None:
        check_file(path, network)
        return
    info = describe_onnx(path)
    if info.precision == "bf16":  # ONNX Runtime has no kernels for it on the CPU
        onnx.checker.check_model(str(path), full_check=True)
        return
    wanted = _run(_on_cpu(model), info)
    _compare(wanted, _run(_on_cpu(path), info), info, f"{path.name} by its bodies")


def run_on_gpu(path: Path, manifest: LibraryManifest) -> str:
    """Run file and library on this machine's GPU if that is possible, compare them with the bodies, and return the GPU's name.

    Raises:
        ModelError: they compute something else.
        SessionError: ONNX Runtime cannot run them.
    """
    try:
        gpu = find_gpu()
        check_targets(path, manifest, gpu.name, gpu.capability)
    except SessionError:
        return ""  # no GPU, or the library is for others
    cuda = PROVIDERS["cuda"]
    if not has_provider(cuda):
        return ""
    onnxruntime: Any = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_FATAL_ONLY
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        options.register_custom_ops_library(str(path.with_name(manifest.library)))
        session = onnxruntime.InferenceSession(
            str(path), options, providers=add_provider(options, cuda, {"use_tf32": "0"})
        )
    except SessionError:
        raise
    except Exception as error:  # ONNX Runtime's own
        raise _failed(path, error) from error
    check_placement(session, cuda, path)
    found = _run(session, manifest.model)
    if manifest.model.precision != "bf16":
        _compare(_run(_on_cpu(path), manifest.model), found, manifest.model, f"the library on {gpu.name}")
    elif not np.isfinite(found).all():
        raise ModelError(f"the library on {gpu.name} gives NaN or infinity")
    return gpu.name


def _on_cpu(path: Path) -> Any:
    try:
        return open_onnx(path)
    except Exception as error:  # ONNX Runtime's own
        raise _failed(path, error) from error


def _run(session: Any, info: ModelInfo) -> Values:
    """First output of a session for random inputs, the same for each session of a model; open sides are small and odd."""
    size = info.fixed_size or (info.minimum | 1, (info.minimum + 2) | 1)
    feeds = {}
    noise = [info.scale * padded(side, info.alignment) for side in size]
    for number, end in enumerate(session.get_inputs()):
        sides = size if number == 0 else noise if end.name == "noise" and info.noise else ()
        known = dict(zip((2, 3), sides, strict=False)) if len(end.shape) == 4 else {}
        shape = [side if isinstance(side, int) else known.get(axis, info.batch) for axis, side in enumerate(end.shape)]
        dtype = np.float16 if end.type == "tensor(float16)" else np.float32
        feeds[end.name] = np.random.default_rng(number).random(shape, np.float32).astype(dtype)
    try:
        result: Values = session.run(None, feeds)[0]
    except Exception as error:  # ONNX Runtime's own
        raise SessionError(f"ONNX Runtime cannot run what was built: {' '.join(str(error).split())}") from error
    return result.astype(np.float32)


def _compare(wanted: Values, found: Values, info: ModelInfo, what: str) -> None:
    if wanted.shape != found.shape or not np.isfinite(found).all():
        raise ModelError(f"{what} gives NaN, infinity or another shape: nothing was written")
    ratio, bound = rms_ratio(wanted, found, LEAST_RMS), bound_of(info.precision).rms_ratio or _FP32
    if ratio > bound:
        raise ModelError(f"{what} computes something else (RMS ratio {ratio:.3g}, bound {bound}): nothing was written")


def _failed(path: Path, error: Exception) -> SessionError:
    return SessionError(f"{path.name}: ONNX Runtime cannot load what was built: {' '.join(str(error).split())}")
