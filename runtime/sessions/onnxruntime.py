"""The embedded default session: a flashrib ONNX file in ONNX Runtime, on the CPU or whatever other provider is asked for.

The CUDA provider has a session of its own, `onnxruntime_cuda`.
"""

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.library import has_library
from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files, openable
from flashrib.runtime.artifacts.onnx_loops import check_loops
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import ModelError, OutOfMemoryError, SessionError, UsageError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.sessions.base import SessionBase, noise_or_zeros, place_of
from flashrib.runtime.sessions.batches import run_in_batches
from flashrib.runtime.sessions.onnx_ends import described_by_graph
from flashrib.runtime.sessions.protocol import Batch, Session
from flashrib.runtime.sessions.providers import (
    PROVIDERS,
    add_provider,
    check_placement,
    has_provider,
    load_onnxruntime,
    provider_named,
)
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.stand_in import check_scale, onnx_info, says_nothing
from flashrib.runtime.stopping import interruptible

# Everything that goes wrong is raised; at 3 (errors) ONNX Runtime would print the same on stderr as well.
_LOG_FATAL_ONLY = 4

# What ONNX Runtime says where an operator does not take a type.
_NO_KERNEL = "Could not find an implementation"


def open_onnx_session(path: Path, spec: SessionSpec) -> Session:
    """Open an ONNX file on the provider and device that a specification asks for; "auto" takes the GPU if that can be had.

    Raises:
        UsageError: options that contradict each other.
        ModelError, SessionError: see the sessions; or `arch` and `scale` of the specification stand in for what the file does not
            say, and its results are of another size.
    """
    session = _open(path, spec, onnx_info(path, spec))
    if says_nothing(path):
        try:
            check_scale(path, session)
        except BaseException:
            session.close()
            raise
    return session


def _open(path: Path, spec: SessionSpec, info: ModelInfo) -> Session:
    options = dict(spec.provider_options)
    name = spec.provider or ("cuda" if spec.device.startswith("cuda") else "cpu" if spec.device == "cpu" else None)
    if name is None:
        name = "cpu" if options or spec.threads is not None or not cuda_can_run(path, info) else "cuda"
    provider_named(name)
    if "," in spec.device:
        raise UsageError(f"--device {spec.device}: ONNX Runtime runs on one GPU: name one, or use --session torch")
    if name != "cuda" and spec.device.startswith("cuda"):
        raise UsageError(
            f"--device {spec.device}: the provider {name} has no such device: leave it out, or use --provider cuda"
        )
    if name == "cuda":
        if spec.device == "cpu":
            raise UsageError("--device cpu: the provider cuda runs on GPUs: leave one of the two out")
        if spec.threads is not None:
            raise UsageError(f"--threads {spec.threads}: the provider cuda runs on a GPU: leave it out")
        from flashrib.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession

        number = int(spec.device.removeprefix("cuda:")) if ":" in spec.device else 0
        return OnnxRuntimeCudaSession(path, number, options, damaged=spec.damaged, described=info)
    return OnnxRuntimeSession(path, spec.threads, name, options, damaged=spec.damaged, described=info)


def cuda_can_run(path: Path, info: ModelInfo) -> bool:
    """Say whether this machine has a GPU and ONNX Runtime's CUDA provider, and the file computes in what that has kernels for."""
    from flashrib.runtime.sessions.onnxruntime_cuda import reason_against

    cuda = PROVIDERS["cuda"]
    if info.precision not in cuda.precisions or not has_provider(cuda):
        return False
    if reason_against(path, info) and not has_library(path):
        return False
    try:
        find_gpu()
    except SessionError:
        return False
    return True


class OnnxRuntimeSession(SessionBase):
    """Runs a flashrib ONNX file with ONNX Runtime; follows `flashrib.runtime.sessions.protocol.Session`.

    The file has one input `input` (B, 3, H, W), a second one, `noise`, if the model takes some, and one output `output`
    (B, 3, scale*H, scale*W), all float32 or float16;
    B is static, any number of pictures being padded to whole batches, or dynamic; H and W are both static or both dynamic.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        provider: str = "cpu",
        options: Mapping[str, str] | None = None,
        *,
        damaged: bool = False,
        described: ModelInfo | None = None,
    ) -> None:
        """Load the ONNX file `path`.

        Args:
            path: of the ONNX file.
            threads: threads that compute one run, >= 1; None: one per core of the machine, or per CPU that this process
                is confined to.
            provider: a key of `flashrib.runtime.sessions.providers.PROVIDERS`.
            options: options of the provider.
            damaged: see `SessionSpec`.
            described: what is known of the file; None: what it says itself.

        Raises:
            UsageError: `threads` is less than 1, or there is no such provider.
            ModelError: no such file, no ONNX file, not made by flashrib, its external data missing or elsewhere, or of other
                inputs and outputs.
            SessionError: onnxruntime or the provider is not installed, or has no kernels for a node of the file.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, but it must be at least 1")
        described = described or describe_onnx(path)
        external_files(path)
        if not damaged:
            check_weights(path, described)
        check_loops(path)
        row = provider_named(provider)
        onnxruntime: Any = load_onnxruntime()
        session_options = onnxruntime.SessionOptions()
        session_options.log_severity_level = _LOG_FATAL_ONLY
        session_options.intra_op_num_threads = threads or _confined_cpus()
        # Measured on a chain of 1x1 and depthwise convolutions at 320x320: with the arena and without memory patterns the
        # peak is 314 MB; with patterns, which reserve again for every shape of tile, 552 MB; without the arena 890 MB, and
        # twice the time.
        session_options.enable_cpu_mem_arena = True
        session_options.enable_mem_pattern = False
        session_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        try:
            providers = add_provider(session_options, row, options or {})
            self._session: Any = onnxruntime.InferenceSession(
                os.fspath(openable(path)), session_options, providers=providers, enable_fallback=0
            )
        except SessionError:
            raise
        except Exception as error:
            if described.precision == "bf16" and _NO_KERNEL in str(error):
                raise SessionError(
                    f"{path}: computes in bf16, for which ONNX Runtime has no kernels on the CPU: export it with --precision fp32"
                    " or fp16, or build an engine from it with flashrib build"
                ) from error
            raise _out_of_memory_or(ModelError, f"{path}: ONNX Runtime cannot load this model", error) from error
        self._run_options: Any = onnxruntime.RunOptions
        self._session.disable_fallback()
        check_placement(self._session, row, path)
        self._together, self._dtype, self.info = described_by_graph(path, self._session, described)
        self.place = place_of(f"{platform.node()} {provider}", self.info)

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, not clamped.

        Args:
            batch: pictures.
            noise: see `Session.run`.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: the session is closed, or ONNX Runtime failed.
        """
        if self._session is None:
            raise SessionError("the ONNX Runtime session is closed: make a new one")
        return run_in_batches(self._run, batch, self._together or len(batch), noise_or_zeros(self.info, batch, noise))

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        self._session = None

    def _run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        inputs = {"input": batch} if noise is None else {"input": batch, "noise": noise}
        try:
            fed = {name: x.astype(self._dtype, copy=False) for name, x in inputs.items()}
            # A run ends between two nodes where that is asked for.
            options = self._run_options()
            with interruptible(functools.partial(setattr, options, "terminate", True)):
                (output,) = self._session.run(["output"], fed, options)
        except Exception as error:
            shape = "x".join(str(side) for side in batch.shape)
            raise _out_of_memory_or(SessionError, f"ONNX Runtime failed on a batch of {shape}", error) from error
        result: Batch = output.astype(np.float32, copy=False)
        return result


def _out_of_memory_or(kind: type[ModelError] | type[SessionError], text: str, error: Exception) -> Exception:
    """Return OutOfMemoryError where `error` is a failed allocation, otherwise an error of the given kind, in one line."""
    reason = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "bad_alloc" in reason or "Failed to allocate memory" in reason:
        return OutOfMemoryError(f"{text}, for lack of memory: {reason}")
    return kind(f"{text}: {reason}")


def _confined_cpus() -> int:
    """Return the CPUs that this process is confined to, or 0, ONNX Runtime's word for every core, where it is not.

    ONNX Runtime itself counts the cores of the machine and would crowd its threads on the few that it may use.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    allowed = len(os.sched_getaffinity(0))
    return allowed if allowed < (os.cpu_count() or 1) else 0
