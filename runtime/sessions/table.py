"""Kinds of sessions: `SESSIONS` has a row for each. From a model file to the session that runs it.

A row says which files a kind runs, which of a user's options, precisions and devices it takes, and how to open it; nothing of a kind
is imported before it is opened. Whatever a row does not take is refused here, and nowhere else. To add a kind, see
docs/howto/add-a-session.md.
"""

import dataclasses
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.bundled import DEFAULT, bundled_model, bundled_weights, is_bundled
from flashrib.runtime.artifacts.engine import read_manifest
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.kinds import CHECKPOINT, ENGINE, ONNX, PACKAGE, FileKind, recognise_file
from flashrib.runtime.artifacts.package import read_package_manifest
from flashrib.runtime.errors import ModelError, SessionError, UsageError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.sessions.describe import (
    describe_checkpoint_file,
    describe_engine,
    describe_onnx_file,
    describe_package,
)
from flashrib.runtime.sessions.devices import check_device
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.stand_in import onnx_info


@dataclass(frozen=True)
class SessionKind:
    """A kind of sessions.

    Attributes:
        name: the row's name, what `--session` takes.
        file: the kind of files that it runs.
        open: takes the path of such a file, and the specification that was checked against this row; imports what it needs.
        describe: takes the path and what the user says about it; returns what `flashrib info` says.
        info: reads from the file what it says about the model, so that arch and scale are compared before it is opened; takes what
            the user says as well, for files that say nothing. None where only `open` can tell, which then compares.
        options: fields of `SessionSpec` beside model, kind, arch, scale and device that it takes; see `OPTIONS`.
        precisions: that it computes in; where `precision` is one of the options, the values of that.
        devices: "cpu", "cuda:0" (the first GPU alone), "cuda" (any GPUs).
        elsewhere: what is said about any other device; "{path}" is the file.
        bundled: returns the file that it runs of the bundled model of a name; None: there is none.
        packages: distributions whose versions decide what it computes, for reports.
        automatic: True where "auto" may choose it and the command line offers it.
    """

    name: str
    file: FileKind
    open: Callable[[Path, SessionSpec], Session]
    describe: Callable[[Path, SessionSpec], dict[str, Any]]
    info: Callable[[Path, SessionSpec], ModelInfo] | None = None
    options: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    devices: tuple[str, ...] = ("cpu",)
    elsewhere: str = "{path} runs on the CPU: leave it out"
    bundled: Callable[[str], Path] | None = None
    packages: tuple[str, ...] = ()
    automatic: bool = True


@dataclass(frozen=True)
class Option:
    """A field of `SessionSpec` that only some kinds take.

    Attributes:
        neutral: values that ask for nothing, and that every kind takes.
        refused: what is said to whoever gives another one to a kind that does not take it; "{path}" is the file, "{file}" its kind.
        flag: on the command line, where it is not called as the field is.
    """

    neutral: tuple[Any, ...]
    refused: str
    flag: str = ""


OPTIONS = {
    "threads": Option((None,), "{path} is {file}, which threads on the CPU would not make faster"),
    "cuda_graph": Option((False,), "{path} is {file}, and only engines run as CUDA graphs"),
    "precision": Option((None, "auto"), "{path} is {file} and has its own"),
    "provider": Option((None,), "{path} is {file}, which ONNX Runtime does not run"),
    "provider_options": Option(((),), "{path} is {file}, which ONNX Runtime does not run", "--provider-option"),
    "damaged": Option((False,), "{path} is {file}, which is not opened when it is damaged"),
    "key": Option((None,), "{path} is {file}, and only checkpoints hold networks under names"),
}


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
    provider: str | None = None,
    provider_options: tuple[tuple[str, str], ...] = (),
    damaged: bool = False,
    key: str | None = None,
) -> Session:
    """Load a model into the session that fits it: `SessionSpec(...).open()`; see `SessionSpec` for arguments and errors."""
    return SessionSpec(
        model, kind, arch, scale, device, threads, cuda_graph, precision, provider, provider_options, damaged, key
    ).open()


def open_spec(spec: SessionSpec) -> Session:
    """Open a session; see `SessionSpec.open`."""
    path, kind = choose_session(spec.model, spec.kind, spec.may_use_gpus)
    if spec.model is None and spec.kind == "auto" and spec.precision is None:
        spec = dataclasses.replace(spec, precision="auto")  # whoever leaves the choice wants the fast one
    row = SESSIONS[kind]
    _check_options(row, path, spec)
    if spec.precision not in (*OPTIONS["precision"].neutral, *row.precisions):
        raise UsageError(f"precision {spec.precision!r} is not one of {', '.join(row.precisions)}")
    if not _has_device(row, check_device(spec.device)):
        raise UsageError(f"--device {spec.device}: {row.elsewhere.format(path=path)}")
    if row.info is not None:
        check_agreement(path, row.info(path, spec), spec.arch, spec.scale)
    return row.open(path, spec)


def _check_options(row: SessionKind, path: Path, spec: SessionSpec) -> None:
    """Refuse what a row does not take."""
    for name, option in OPTIONS.items():
        value = getattr(spec, name)
        if name not in row.options and value not in option.neutral:
            given = option.flag or f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{given}{_shown(value)}: {option.refused.format(path=path, file=row.file.called)}: leave it out"
            )


def choose_session(
    model: str | os.PathLike[str] | None, kind: str = "auto", may_use_gpus: bool = False
) -> tuple[Path, str]:
    """Return the model file, a bundled one where `model` is its name or None, and the kind of session for it, a name in `SESSIONS`.

    With `may_use_gpus`, a bundled model is the checkpoint where PyTorch and its kernels can run it on a GPU: the fastest that there is.

    Raises:
        UsageError: no such `kind`, or one that cannot run this file.
        ModelError: see `recognise_file`; or the bundled file is missing.
    """
    if kind != "auto" and kind not in SESSIONS:
        raise UsageError(f"session {kind!r} is not one of {', '.join(session_names())}")
    if model is None or is_bundled(model):
        if kind == "auto":
            kind = "torch" if may_use_gpus and _torch_has_gpu() else "onnxruntime"
        row = SESSIONS[kind]
        if row.bundled is None:
            raise UsageError(
                f"session {kind!r} runs {row.file.called}: build one with flashrib build, and name it with --model"
            )
        return row.bundled(DEFAULT if model is None else os.fspath(model)), row.name
    path = Path(model)
    file = recognise_file(path)
    if kind != "auto" and SESSIONS[kind].file == file:
        return path, kind
    fitting = next((row.name for row in SESSIONS.values() if row.file == file and row.automatic), None)
    if fitting is None:
        raise UsageError(f"{path}: is {file.called}, and no kind of session runs such files")
    if kind != "auto":
        raise UsageError(
            f"{path}: is {file.called}, which a session of the kind {kind!r} cannot run: use --session {fitting}"
        )
    return path, fitting


def choose_exact_session(model: str | os.PathLike[str], arch: str | None = None, scale: int | None = None) -> str:
    """Return the kind of session that shows on this machine what the precision of a file makes of its output.

    `arch` and `scale` are what the user says of the file. The kind is the one that "auto" chooses, or an emulation where that has no
    kernels for the precision. Errors as `choose_session`.
    """
    path, kind = choose_session(model)
    row = SESSIONS[kind]
    if row.info is None:
        return kind
    precision = row.info(path, SessionSpec(path, arch=arch, scale=scale)).precision
    if precision in row.precisions:
        return kind
    others = (other for other in SESSIONS.values() if other.file == row.file and precision in other.precisions)
    return next((other.name for other in others), kind)


def describe_model(
    model: str | os.PathLike[str] | None, arch: str | None = None, scale: int | None = None, key: str | None = None
) -> dict[str, Any]:
    """Return what is known about a model file, a bundled one where `model` is its name or None, in JSON's types; nothing of it is run.

    The other arguments are fields of `SessionSpec`.

    Raises:
        UsageError: `key` for a file that is no checkpoint.
        ModelError: it cannot be read, or contradicts `arch` or `scale`.
        MissingPackageError: reading it needs a package that is not installed.
    """
    path, kind = choose_session(model)
    row, spec = SESSIONS[kind], SessionSpec(path, kind, arch, scale, key=key)
    _check_options(row, path, spec)
    if row.info is not None:
        check_agreement(path, row.info(path, spec), arch, scale)
    about = row.describe(path, spec)
    if scale not in (None, about.get("scale") or scale):
        raise ModelError(
            f"{path}: its scale is {about['scale']}, not {scale}: leave --scale out, or choose another model"
        )
    return about


def session_names() -> tuple[str, ...]:
    """Return what a user may ask for: "auto" and the names of the kinds."""
    return ("auto", *(row.name for row in SESSIONS.values() if row.automatic))


def check_agreement(path: Path, info: ModelInfo, arch: str | None, scale: int | None) -> None:
    """Raise ModelError where a file is not what the caller says that it is."""
    for name, said, seen in (("arch", arch, info.architecture), ("scale", scale, info.scale)):
        if said not in (None, seen):
            raise ModelError(f"{path}: its {name} is {seen}, not {said}: leave --{name} out, or choose another model")


def _has_device(row: SessionKind, device: str) -> bool:
    if device == "auto":
        return True
    if device == "cpu":
        return "cpu" in row.devices
    return "cuda" in row.devices or (device in ("cuda", "cuda:0") and "cuda:0" in row.devices)


def _torch_has_gpu() -> bool:
    """Say whether PyTorch, with the packages for its fast session, can use a GPU here; asks the driver first, PyTorch loads slowly."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "triton", "safetensors")):
        return False
    try:
        find_gpu()
    except SessionError:
        return False
    import torch

    return torch.cuda.is_available()


def _shown(value: Any) -> str:
    """The value of an option as the user wrote it."""
    if isinstance(value, tuple):
        return " " + ",".join("=".join(pair) for pair in value)
    return "" if value is True else f" {value}"


def _open_onnxruntime(path: Path, spec: SessionSpec) -> Session:
    from flashrib.runtime.sessions.onnxruntime import open_onnx_session

    return open_onnx_session(path, spec)


def _open_emulation(path: Path, spec: SessionSpec) -> Session:
    from flashrib.runtime.sessions.emulation import open_emulation

    return open_emulation(path, spec.threads, damaged=spec.damaged, described=onnx_info(path, spec))


def _open_torch(path: Path, spec: SessionSpec) -> Session:
    from flashrib.runtime.sessions.torch_gpu.session import open_checkpoint

    return open_checkpoint(path, spec)


def _open_engine(path: Path, spec: SessionSpec) -> Session:
    from flashrib.runtime.sessions.tensorrt import TensorRTSession

    return TensorRTSession(path, cuda_graph=spec.cuda_graph)


def _open_package(path: Path, spec: SessionSpec) -> Session:
    from flashrib.runtime.sessions.aoti import open_package_session

    return open_package_session(path, spec.device)


SESSIONS = {
    row.name: row
    for row in (
        SessionKind(
            "onnxruntime",
            ONNX,
            _open_onnxruntime,
            describe_onnx_file,
            info=onnx_info,
            options=("threads", "provider", "provider_options", "damaged"),
            precisions=("fp32", "fp16", "int8", "fp8"),
            devices=("cpu", "cuda"),
            bundled=bundled_model,
            packages=("onnxruntime",),
        ),
        SessionKind(
            "torch",
            CHECKPOINT,
            _open_torch,
            describe_checkpoint_file,
            options=("threads", "precision", "key"),
            precisions=("fp32", "fp16", "bf16"),
            devices=("cpu", "cuda"),
            bundled=bundled_weights,
            packages=("torch",),
        ),
        SessionKind(
            "tensorrt",
            ENGINE,
            _open_engine,
            describe_engine,
            info=lambda path, spec: read_manifest(path).info,
            options=("cuda_graph",),
            precisions=("fp32", "fp16", "bf16", "int8", "fp8"),
            devices=("cuda:0",),
            elsewhere="{path} is an engine, which runs on the first GPU; otherwise use the ONNX file",
        ),
        SessionKind(
            "aoti",
            PACKAGE,
            _open_package,
            describe_package,
            info=lambda path, spec: read_package_manifest(path).info,
            precisions=("fp32", "fp16", "bf16"),
            devices=("cpu", "cuda"),
            packages=("torch",),
        ),
        SessionKind(
            "emulation",
            ONNX,
            _open_emulation,
            describe_onnx_file,
            info=onnx_info,
            options=("threads", "damaged"),
            precisions=("fp32", "fp16", "bf16"),
            elsewhere="an emulation runs on the CPU: leave it out",
            packages=("onnxruntime",),
            automatic=False,
        ),
    )
}
