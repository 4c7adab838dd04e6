"""An ONNX file in a precision that this machine has no kernels for: the same graph in float32, with every tensor rounded."""

import tempfile
from pathlib import Path

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import MissingPackageError, ModelError
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession


def open_emulation(
    path: Path, threads: int | None = None, *, damaged: bool = False, described: ModelInfo | None = None
) -> OnnxRuntimeSession:
    """Emulate an ONNX file with ONNX Runtime on the CPU; see `flashrib.export.emulate`.

    Args:
        path: of the ONNX file.
        threads: see `OnnxRuntimeSession`.
        damaged: see `SessionSpec`.
        described: what is known of the file; None: what it says itself.

    Raises:
        MissingPackageError: onnx is not installed.
        ModelError, SessionError, UsageError: see `OnnxRuntimeSession`; or the graph cannot be emulated.
    """
    try:
        import onnx

        from flashrib.export.emulate import emulated
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "onnx", "emulating bf16", "export") from error
    described = described or describe_onnx(path)
    external_files(path)
    if not damaged:
        check_weights(path, described)
    with tempfile.TemporaryDirectory(prefix="flashrib-") as folder:
        copy = Path(folder) / "emulated.onnx"
        try:
            onnx.save(emulated(onnx.load(path)), copy)
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(f"{path}: cannot be emulated in float32: {' '.join(str(error).split())}") from error
        return OnnxRuntimeSession(
            copy, threads, damaged=True, described=described
        )  # checked above; the emulation has other weights
