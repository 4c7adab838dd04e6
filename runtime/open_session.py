"""From a model file to a session: which kind of file it is, and which session runs it."""

import os
from pathlib import Path

from flashrib.runtime.bundled import default_model, default_weights
from flashrib.runtime.engine_manifest import is_engine, read_manifest
from flashrib.runtime.errors import ModelError, UsageError
from flashrib.runtime.metadata import ModelMetadata
from flashrib.runtime.onnxruntime_session import OnnxRuntimeSession, describe_onnx
from flashrib.runtime.session import Session
from flashrib.runtime.tensorrt_session import TensorRTSession
from flashrib.runtime.torch_session import DEVICES, TorchSession

KINDS = ("auto", "onnxruntime", "torch", "tensorrt")
_FILES = {"onnxruntime": "an ONNX file", "torch": "a checkpoint", "tensorrt": "an engine"}

# ZIP archive and plain pickles of protocol 2 to 5, as torch.save writes them.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Say whether a model file is a PyTorch checkpoint (True) or an ONNX file (False).

    The content decides where it is unmistakable, otherwise the name; whoever reads the file then says what is wrong with it.

    Raises:
        ModelError: no such file, it cannot be read, or it is neither.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read as a model: {getattr(error, 'strerror', error)}") from error
    # A .safetensors file: the length of a JSON header in eight bytes, lowest first, then the header.
    if start.startswith(_PICKLES) or (start[8:9] == b"{" and start[5:8] == bytes(3)):
        return True
    suffix = path.suffix.lower()
    # A protobuf message that begins with the field ir_version, a number.
    if start.startswith(b"\x08") or suffix == ".onnx":
        return False
    if suffix in _CHECKPOINT_SUFFIXES:
        return True
    raise ModelError(
        f"{path}: neither an ONNX file nor a checkpoint (.pth, .safetensors) nor an engine: it starts with {start!r}"
        if start
        else f"{path}: the file is empty"
    )


def choose_session(model: str | os.PathLike[str] | None, kind: str = "auto") -> tuple[Path, str]:
    """Return the model file, the bundled one where `model` is None, and the kind of session for it, one of
    `KINDS` but "auto".

    Raises:
        UsageError: no such `kind`, or one that cannot run this file.
        ModelError: see `is_checkpoint`; or the bundled file is missing.
    """
    if kind not in KINDS:
        raise UsageError(f"session {kind!r} is not one of {', '.join(KINDS)}")
    if model is None and kind == "tensorrt":
        raise UsageError("session 'tensorrt' runs an engine: build one with flashrib build, and name it with --model")
    if model is None:
        return (default_weights(), "torch") if kind == "torch" else (default_model(), "onnxruntime")
    path = Path(model)
    fitting = "tensorrt" if is_engine(path) else "torch" if is_checkpoint(path) else "onnxruntime"
    if kind not in ("auto", fitting):
        raise UsageError(
            f"{path}: is {_FILES[fitting]}, which a session of the kind {kind!r} cannot run: use --session {fitting}"
        )
    return path, fitting


def open_session(
    model: str | os.PathLike[str] | None = None,
    kind: str = "auto",
    *,
    arch: str | None = None,
    scale: int | None = None,
    device: str = "auto",
    threads: int | None = None,
) -> Session:
    """Load a model into the session that fits it.

    Args:
        model: an ONNX file or an engine made by flashrib, or a checkpoint; None: the bundled model.
        kind: "onnxruntime", "torch", "tensorrt", or "auto": ONNX Runtime for ONNX files, PyTorch for checkpoints, TensorRT of
            the flavour that its manifest names for engines.
        arch: what the model must be; needed for checkpoints that do not say it themselves.
        scale: magnification that the model must have.
        device: "auto", "cpu" or "cuda"; ONNX Runtime knows the CPU alone, TensorRT CUDA.
        threads: threads on the CPU, >= 1; None leaves them to the session.

    Raises:
        UsageError: see `choose_session`; a device or a number of threads that cannot be had.
        ModelError: the file is missing, damaged, not made by flashrib, or contradicts `arch` or `scale`.
        MissingPackageError, SessionError: the session cannot start.
    """
    path, kind = choose_session(model, kind)
    if kind == "torch":
        return TorchSession(path, arch, scale, device, threads)
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    if kind == "tensorrt":
        if device == "cpu":
            raise UsageError(f"--device cpu: {path} is an engine, which runs on a GPU; use the ONNX file")
        check_agreement(path, read_manifest(path).model, arch, scale)
        return TensorRTSession(path)
    if device == "cuda":
        raise UsageError("--device cuda: ONNX Runtime runs on the CPU here; use --session torch")
    check_agreement(path, describe_onnx(path), arch, scale)
    return OnnxRuntimeSession(path, threads)


def check_agreement(path: Path, metadata: ModelMetadata, arch: str | None, scale: int | None) -> None:
    """Raise ModelError where an ONNX file or an engine is not what the caller says that it is."""
    for name, said, seen in (("arch", arch, metadata.architecture), ("scale", scale, metadata.scale)):
        if said not in (None, seen):
            raise ModelError(f"{path}: its {name} is {seen}, not {said}: leave --{name} out, or choose another model")
