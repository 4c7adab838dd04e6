"""The embedded default session: a flashrib ONNX file in ONNX Runtime, on the CPU."""

import dataclasses
import os
from typing import Any

import numpy as np

from flashrib.runtime.artifacts.onnx_file import describe_onnx, external_files, openable
from flashrib.runtime.artifacts.onnx_weights import check_weights
from flashrib.runtime.errors import ModelError, OutOfMemoryError, SessionError, UsageError
from flashrib.runtime.sessions.base import SessionBase
from flashrib.runtime.sessions.batches import run_in_batches
from flashrib.runtime.sessions.protocol import Batch

_INPUT_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}

# Everything that goes wrong is raised; at 3 (errors) ONNX Runtime would print the same on stderr as well.
_LOG_FATAL_ONLY = 4

# What ONNX Runtime says where an operator does not take a type.
_NO_KERNEL = "Could not find an implementation"


class OnnxRuntimeSession(SessionBase):
    """Runs a flashrib ONNX file with ONNX Runtime on the CPU; follows `flashrib.runtime.sessions.protocol.Session`.

    The file has one input `input` (B, 3, H, W) and one output `output` (B, 3, scale*H, scale*W), both float32 or float16;
    B is static, any number of pictures being completed to whole batches, or dynamic; H and W are both static or both dynamic.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        """Load the ONNX file `path`.

        Args:
            path: of the ONNX file.
            threads: threads that compute one run, >= 1; None: one per core of the machine, or per CPU that this process
                is confined to.

        Raises:
            UsageError: `threads` is less than 1.
            ModelError: no such file, no ONNX file, not made by flashrib, its external data missing or elsewhere, or of other
                inputs and outputs.
            SessionError: onnxruntime is not installed, or has no kernels for the precision of the file.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, but it must be at least 1")
        described = describe_onnx(path)
        external_files(path)
        check_weights(path, described)
        try:
            import onnxruntime
        except ImportError as error:
            raise SessionError("running an ONNX file needs onnxruntime: pip install onnxruntime") from error

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_FATAL_ONLY
        options.intra_op_num_threads = threads or _confined_cpus()
        # Measured on a chain of 1x1 and depthwise convolutions at 320x320: with the arena and without memory patterns the
        # peak is 314 MB; with patterns, which reserve anew for every shape of tile, 552 MB; without the arena 890 MB, and
        # twice the time.
        options.enable_cpu_mem_arena = True
        options.enable_mem_pattern = False
        try:
            self._session: Any = onnxruntime.InferenceSession(
                os.fspath(openable(path)), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            if described.precision == "bf16" and _NO_KERNEL in str(error):
                raise SessionError(
                    f"{path}: computes in bf16, for which ONNX Runtime has no kernels on the CPU: export it with --precision fp32"
                    " or fp16, or build an engine from it with flashrib build"
                ) from error
            raise _out_of_memory_or(ModelError, f"{path}: ONNX Runtime cannot load this model", error) from error

        batch, height, width = self._check_ends(path)
        self._together = batch if isinstance(batch, int) else None
        self._dtype = _INPUT_DTYPES[self._session.get_inputs()[0].type]
        # The graph itself tells these, whatever was done to the file since it was described.
        self.info = dataclasses.replace(
            described,
            fixed_size=(height, width) if isinstance(height, int) else None,
            io="fp16" if self._dtype == "float16" else "fp32",
        )

    def run(self, batch: Batch) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, not clamped.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: the session is closed, or ONNX Runtime failed.
        """
        if self._session is None:
            raise SessionError("the ONNX Runtime session is closed: make a new one")
        return self._run(batch) if self._together is None else run_in_batches(self._run, batch, self._together)

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        self._session = None

    def _run(self, batch: Batch) -> Batch:
        try:
            (output,) = self._session.run(["output"], {"input": batch.astype(self._dtype, copy=False)})
        except Exception as error:
            shape = "x".join(str(side) for side in batch.shape)
            raise _out_of_memory_or(SessionError, f"ONNX Runtime failed on a batch of {shape}", error) from error
        result: Batch = output.astype(np.float32, copy=False)
        return result

    def _check_ends(self, path: str | os.PathLike[str]) -> tuple[int | str, Any, Any]:
        """Return the input's B, H and W, numbers or names, or raise ModelError where they are not as promised."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        names = [end.name for end in inputs], [end.name for end in outputs]
        if names != (["input"], ["output"]):
            raise ModelError(
                f"{path}: the model maps {names[0]} to {names[1]}, but it must have the one input 'input' and the one output"
                " 'output': export it anew"
            )
        if inputs[0].type not in _INPUT_DTYPES or outputs[0].type not in _INPUT_DTYPES:
            raise ModelError(
                f"{path}: the model maps {inputs[0].type} to {outputs[0].type}, but both must be float32 or float16: export"
                " it with --precision fp32 or fp16"
            )
        shape = inputs[0].shape
        if len(shape) != 4 or shape[1] != 3:
            raise ModelError(f"{path}: the input is {shape}, but it must be (B, 3, H, W)")
        if isinstance(shape[2], int) != isinstance(shape[3], int):
            raise ModelError(
                f"{path}: the input is {shape}, but its height and width must be both static or both dynamic"
            )
        return shape[0], shape[2], shape[3]


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
