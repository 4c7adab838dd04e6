"""From a model file to a session: which kind of file it is, and which session runs it."""

import os
from pathlib import Path

from flashrib.runtime.artifacts.bundled import default_model, default_weights
from flashrib.runtime.artifacts.engine import is_engine, read_manifest
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.artifacts.package import is_package, read_package_manifest
from flashrib.runtime.errors import ModelError, UsageError
from flashrib.runtime.sessions.aoti import open_package_session
from flashrib.runtime.sessions.devices import check_device, choose_devices
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.tensorrt import TensorRTSession
from flashrib.runtime.sessions.torch_gpu.session import open_gpu_session
from flashrib.runtime.sessions.torch_plain import TorchSession, require_torch

KINDS = ("auto", "onnxruntime", "torch", "tensorrt", "aoti")
_FILES = {"onnxruntime": "an ONNX file", "torch": "a checkpoint", "tensorrt": "an engine", "aoti": "a package"}

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
    if model is None and kind in ("tensorrt", "aoti"):
        raise UsageError(
            f"session {kind!r} runs {_FILES[kind]}: build one with flashrib build, and name it with --model"
        )
    if model is None:
        return (default_weights(), "torch") if kind == "torch" else (default_model(), "onnxruntime")
    path = Path(model)
    fitting = (
        "tensorrt"
        if is_engine(path)
        else "aoti"  # before checkpoints, which may be archives of the same kind
        if is_package(path)
        else "torch"
        if is_checkpoint(path)
        else "onnxruntime"
    )
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
    cuda_graph: bool = False,
    precision: str | None = None,
) -> Session:
    """Load a model into the session that fits it.

    Args:
        model: an ONNX file, an engine or a package made by flashrib, or a checkpoint; None: the bundled model.
        kind: "onnxruntime", "torch", "tensorrt", "aoti", or "auto": ONNX Runtime for ONNX files, PyTorch for checkpoints, TensorRT
            of the flavour that its manifest names for engines, AOTInductor for packages.
        arch: what the model must be; needed for checkpoints that do not say it themselves.
        scale: magnification that the model must have.
        device: see `choose_devices`; ONNX Runtime knows the CPU alone, TensorRT the first GPU.
        threads: threads on the CPU, >= 1; None leaves them to the session.
        cuda_graph: launch an engine as a CUDA graph; see `TensorRTSession`.
        precision: of a checkpoint. None: the plain session, in float32 with PyTorch's own operators, which is what others are
            compared with. "fp32", "fp16", "bf16": on GPUs the fast session in that precision. "auto": on GPUs the fast session in
            fp16, on the CPU the plain one.

    Raises:
        UsageError: see `choose_session`; `cuda_graph` for anything but an engine, `precision` for anything but a checkpoint; a
            device or a number of threads that cannot be had.
        ModelError: the file is missing, damaged, not made by flashrib, or contradicts `arch` or `scale`.
        MissingPackageError, SessionError: the session cannot start.
    """
    path, kind = choose_session(model, kind)
    if cuda_graph and kind != "tensorrt":
        raise UsageError(f"--cuda-graph: {path} is {_FILES[kind]}, and only engines run as CUDA graphs: leave it out")
    if kind == "torch":
        return _open_checkpoint(path, arch, scale, device, threads, precision)
    if precision not in (None, "auto"):
        raise UsageError(f"--precision {precision}: {path} is {_FILES[kind]} and has its own: leave it out")
    check_device(device)
    if kind == "aoti":
        check_agreement(path, read_package_manifest(path).model, arch, scale)
        return open_package_session(path, device)
    if kind == "tensorrt":
        if device not in ("auto", "cuda", "cuda:0"):
            raise UsageError(
                f"--device {device}: {path} is an engine, which runs on the first GPU; otherwise use the ONNX file"
            )
        check_agreement(path, read_manifest(path).model, arch, scale)
        return TensorRTSession(path, cuda_graph=cuda_graph)
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: ONNX Runtime runs on the CPU here; use --session torch")
    check_agreement(path, describe_onnx(path), arch, scale)
    return OnnxRuntimeSession(path, threads)


def _open_checkpoint(
    path: Path, arch: str | None, scale: int | None, device: str, threads: int | None, precision: str | None
) -> Session:
    require_torch("a PyTorch session")
    if precision is None or choose_devices(device) == ("cpu",):
        if precision in ("fp16", "bf16"):
            raise UsageError(f"--precision {precision}: on the CPU PyTorch computes in fp32; it needs a CUDA GPU")
        return TorchSession(path, arch, scale, device, threads)
    return open_gpu_session(path, choose_devices(device), "fp16" if precision == "auto" else precision, arch, scale)


def check_agreement(path: Path, metadata: ModelInfo, arch: str | None, scale: int | None) -> None:
    """Raise ModelError where an ONNX file or an engine is not what the caller says that it is."""
    for name, said, seen in (("arch", arch, metadata.architecture), ("scale", scale, metadata.scale)):
        if said not in (None, seen):
            raise ModelError(f"{path}: its {name} is {seen}, not {said}: leave --{name} out, or choose another model")
