"""The embedded default session: a flashrib ONNX file in ONNX Runtime, on the CPU."""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flashrib.runtime.errors import ModelError, OutOfMemoryError, SessionError, UsageError
from flashrib.runtime.metadata import ModelMetadata
from flashrib.runtime.session import Batch

_INPUT_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}

# Everything that goes wrong is raised; at 3 (errors) ONNX Runtime would print the same on stderr as well.
_LOG_FATAL_ONLY = 4

# Fields of ModelProto and StringStringEntryProto in onnx.proto.
_GRAPH, _METADATA_PROPS = 7, 14
_KEY, _VALUE = 1, 2


class OnnxRuntimeSession:
    """Runs a flashrib ONNX file with ONNX Runtime on the CPU; follows `flashrib.runtime.session.Session`.

    The file has one input `input` (B, 3, H, W) and one output `output` (B, 3, scale*H, scale*W), both float32 or float16;
    B is 1 or dynamic; H and W are both static or both dynamic.

    Attributes:
        metadata: what the file says about itself.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        """Load the ONNX file `path`.

        Args:
            path: of the ONNX file.
            threads: threads that compute one run, >= 1; None: one per core of the machine, or per CPU that this process
                is confined to.

        Raises:
            UsageError: `threads` is less than 1.
            ModelError: no such file, no ONNX file, not made by flashrib, or of other inputs and outputs.
            SessionError: onnxruntime is not installed.
        """
        if threads is not None and threads < 1:
            raise UsageError(f"threads is {threads}, but it must be at least 1")
        self.metadata = describe_onnx(path)
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
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise _out_of_memory_or(ModelError, f"{path}: ONNX Runtime cannot load this model", error) from error

        batch, self.channels, height, width = self._check_ends(path)
        self._one_by_one = isinstance(batch, int)
        self.dtype = _INPUT_DTYPES[self._session.get_inputs()[0].type]
        self.fixed_size: tuple[int, int] | None = (height, width) if isinstance(height, int) else None
        self.scale = self.metadata.scale
        self.multiple = self.metadata.alignment
        self.minimum = self.metadata.minimum
        self.whole_picture = self.metadata.whole_picture

    def run(self, batch: Batch) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, not clamped.

        Raises:
            OutOfMemoryError: the batch does not fit; a smaller one may.
            SessionError: the session is closed, or ONNX Runtime failed.
        """
        if self._session is None:
            raise SessionError("the ONNX Runtime session is closed: make a new one")
        if self._one_by_one and len(batch) > 1:
            return np.concatenate([self.run(picture[None]) for picture in batch])
        try:
            (output,) = self._session.run(["output"], {"input": batch.astype(self.dtype, copy=False)})
        except Exception as error:
            shape = "x".join(str(side) for side in batch.shape)
            raise _out_of_memory_or(SessionError, f"ONNX Runtime failed on a batch of {shape}", error) from error
        result: Batch = output.astype(np.float32, copy=False)
        return result

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        self._session = None

    def _check_ends(self, path: str | os.PathLike[str]) -> tuple[int | str, int, Any, Any]:
        """Return the input's (B, channels, H, W), numbers or names, or raise ModelError where they are not as promised."""
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
        if len(shape) != 4 or shape[1] != 3 or (isinstance(shape[0], int) and shape[0] != 1):
            raise ModelError(f"{path}: the input is {shape}, but it must be (B, 3, H, W) with B 1 or dynamic")
        if isinstance(shape[2], int) != isinstance(shape[3], int):
            raise ModelError(
                f"{path}: the input is {shape}, but its height and width must be both static or both dynamic"
            )
        return shape[0], shape[1], shape[2], shape[3]


def describe_onnx(path: str | os.PathLike[str]) -> ModelMetadata:
    """Read what an ONNX file says about itself, in no time and without ONNX Runtime.

    Works as well for files that ONNX Runtime could not run on this machine.

    Raises:
        ModelError: no such file, no ONNX file, a truncated one, or one that flashrib did not make.
    """
    if not Path(path).is_file():
        raise ModelError(f"{path}: there is no such file")
    try:
        properties = _metadata_properties(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{path}: not an ONNX file, or a truncated one ({os.path.getsize(path)} bytes): export or copy it anew"
        ) from error
    return ModelMetadata.from_properties(properties, os.fspath(path))


def _metadata_properties(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the metadata properties; ValueError or IndexError where the file is not a whole ModelProto with a graph."""
    properties = {}
    has_graph = False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, start, stop in _fields(data, 0, len(data)):
            has_graph = has_graph or number == _GRAPH
            if number == _METADATA_PROPS:
                entry = {key: data[begin:end].decode() for key, begin, end in _fields(data, start, stop)}
                properties[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    if not has_graph:
        raise ValueError("no graph")
    return properties


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, stop) of each field of a message in protobuf's wire format.

    Source: https://protobuf.dev/programming-guides/encoding/.
    """
    while start < stop:
        tag, start = _varint(data, start)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            _, end = _varint(data, start)
        elif wire_type == 2:
            size, start = _varint(data, start)
            end = start + size
        elif wire_type in (1, 5):
            end = start + (8 if wire_type == 1 else 4)
        else:
            raise ValueError(f"wire type {wire_type}")
        if end > stop:
            raise ValueError(f"field {number} ends at {end}, after {stop}")
        yield number, start, end
        start = end


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    """Return (value, position after it); the lowest 7 bits come first, the 8th says that more follow."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")


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
