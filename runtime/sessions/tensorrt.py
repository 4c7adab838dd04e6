"""Sessions for engines of both flavours, TensorRT-RTX and TensorRT, on the first GPU.

Everything that can be wrong with the file, the installed version or the GPU is found before anything is allocated. What remains here
is thin on purpose: shapes in, two buffers, one call. On request that call is a CUDA graph: TensorRT-RTX makes and keeps such graphs
itself; for TensorRT the session records one.
"""

import os
from typing import Any, NamedTuple

import numpy as np

from flashrib.runtime.artifacts.engine import check_gpu, check_version, read_engine, read_manifest
from flashrib.runtime.errors import OutOfMemoryError, SessionError
from flashrib.runtime.nvidia.cuda import Device, Graph, find_gpu
from flashrib.runtime.nvidia.flavours import FLAVOURS, collecting_logger, first_error, load_flavour
from flashrib.runtime.sessions.base import SessionBase, noise_or_zeros
from flashrib.runtime.sessions.batches import run_in_batches
from flashrib.runtime.sessions.protocol import Batch


class _Bound(NamedTuple):
    """What an execution context was told: name, shape and address of each input, and address of the output."""

    inputs: tuple[tuple[str, tuple[int, ...], int], ...]
    output: int


class TensorRTSession(SessionBase):
    """Runs an engine with TensorRT or TensorRT-RTX; follows `flashrib.runtime.sessions.protocol.Session`.

    Attributes:
        manifest: what the engine says about itself.
    """

    def __init__(self, path: str | os.PathLike[str], *, cuda_graph: bool = False) -> None:
        """Load the engine `path`, whose manifest lies beside it.

        Args:
            path: of the engine.
            cuda_graph: launch the engine as a CUDA graph from the second of several runs of one shape on.

        Raises:
            ModelError: the engine or its manifest is missing, damaged or changed.
            MissingPackageError: the Python package of the engine's flavour is not installed.
            SessionError: the engine is of another version or for another GPU; no driver, no GPU; TensorRT refused it.
            OutOfMemoryError: the engine does not fit into the GPU's memory.
        """
        self.manifest = read_manifest(path)
        plan = read_engine(path, self.manifest)
        flavour = FLAVOURS[self.manifest.flavour]
        trt = load_flavour(flavour, f"running {path}")
        check_version(path, self.manifest, trt.__version__)
        check_gpu(path, self.manifest, find_gpu())

        self._product = flavour.product
        self._logger = collecting_logger(trt)
        self._device: Device | None = Device()
        names = ("input", "noise") if self.manifest.info.noise else ("input",)
        self._inputs, self._output = {name: self._device.buffer() for name in names}, self._device.buffer()
        # TensorRT-RTX does it on its own; see _new_context.
        self._records = cuda_graph and flavour.name == "tensorrt"
        self._graph: Graph | None = None
        self._bound: _Bound | None = None
        self._runtime = trt.Runtime(self._logger)
        if self.manifest.version_compatible:
            # Such engines carry the runtime of their version, which is code; the hash has vouched for it.
            self._runtime.engine_host_code_allowed = True
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = self._engine and self._new_context(trt, cuda_graph)
        if not self._context:
            loaded = self._engine is not None
            self.close()
            if loaded:
                needed = self.manifest.scratch_bytes / 1e6
                raise OutOfMemoryError(
                    f"{path}: does not fit into the GPU's memory: it needs {needed:.0f} MB beside its weights"
                    f" ({first_error(self._logger.messages)}): build it for a smaller tile"
                )
            raise SessionError(f"{path}: {flavour.product} refuses this engine: {first_error(self._logger.messages)}")

        self.info = self.manifest.info

    def run(self, batch: Batch, noise: Batch | None = None) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, not clamped.

        Raises:
            OutOfMemoryError: larger than the largest size that the engine was built for, or the GPU's memory is full.
            SessionError: the session is closed, the size is not one that the engine takes, or TensorRT failed.
        """
        if self._device is None:
            raise SessionError("the TensorRT session is closed: make a new one")
        self._check_size(batch.shape[2], batch.shape[3])
        self._device.use()
        return run_in_batches(self._run_whole, batch, self.manifest.batch, noise_or_zeros(self.info, batch, noise))

    def close(self) -> None:
        """Free the engine and its memory on the GPU; calling it again does nothing."""
        if self._device is not None:
            # The context uses the engine, and the engine the runtime.
            self._forget()
            self._context = None
            self._engine = None
            self._runtime = None
            for buffer in self._inputs.values():
                buffer.free()
            self._output.free()
            self._device.close()
            self._device = None

    def _run_whole(self, *inputs: Batch) -> Batch:
        """Run as many pictures, with their noise where the engine takes some, as it takes together."""
        assert self._device is not None
        batch, channels, height, width = inputs[0].shape
        shape = (batch, channels, self.info.scale * height, self.info.scale * width)
        given = {name: np.ascontiguousarray(x, self.manifest.io) for name, x in zip(self._inputs, inputs, strict=True)}
        for name, values in given.items():
            self._inputs[name].reserve(values.nbytes)
        self._output.reserve(int(np.prod(shape)) * np.dtype(self.manifest.io).itemsize)
        for name, values in given.items():
            self._device.upload(values, self._inputs[name])
        bound = tuple((name, values.shape, self._inputs[name].address.value) for name, values in given.items())
        del self._logger.messages[:]
        if not self._execute(_Bound(bound, self._output.address.value)):
            raise SessionError(
                f"{self._product} failed on a batch of {batch}x{channels}x{height}x{width}:"
                f" {first_error(self._logger.messages)}"
            )
        result: Batch = self._device.download(self._output, shape, self.manifest.io).astype(np.float32, copy=False)
        return result

    def _execute(self, bound: "_Bound") -> bool:
        """Put one run on the stream; False where TensorRT refuses it.

        One graph is kept, that of the latest shape: a graph belongs to the state of the execution context, and another shape changes
        that; a context for each shape would multiply the scratch memory. The first run of a shape is a plain one, in which TensorRT
        sets up what cannot be recorded.
        """
        assert self._device is not None
        if bound != self._bound:
            self._forget()
            done = self._bind(bound) and self._enqueue()
            self._bound = bound if done else None
            return done
        if not self._records:
            return self._enqueue()
        if self._graph is None:
            try:
                self._graph = self._device.record(self._enqueue)
            except SessionError as error:
                raise SessionError(
                    f"{self._product} cannot run this engine as a CUDA graph ({error}): leave --cuda-graph out"
                ) from error
        self._graph.launch()
        return True

    def _bind(self, bound: "_Bound") -> bool:
        """Tell TensorRT the shapes of the inputs and where inputs and output lie."""
        context = self._context
        told = all(
            context.set_input_shape(name, shape) and context.set_tensor_address(name, address)
            for name, shape, address in bound.inputs
        )
        return bool(told and context.set_tensor_address("output", bound.output))

    def _enqueue(self) -> bool:
        assert self._device is not None
        return bool(self._context.execute_async_v3(self._device.stream))

    def _forget(self) -> None:
        """Forget what the execution context was told last, and the graph made of it."""
        self._bound = None
        if self._graph is not None:
            self._graph.free()
            self._graph = None

    def _new_context(self, trt: Any, cuda_graph: bool) -> Any:
        """Return an execution context, or None where the memory does not suffice.

        TensorRT-RTX compiles kernels for a shape while it runs and knows itself when a graph can be made of them; see
        https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-cuda-graphs.html.
        """
        if not cuda_graph or self._records:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        return self._engine.create_execution_context(config)

    def _check_size(self, height: int, width: int) -> None:
        smallest, _, largest = self.manifest.shapes
        if self.manifest.fixed_size not in (None, (height, width)) or height < smallest[0] or width < smallest[1]:
            low, high = f"{smallest[0]}x{smallest[1]}", f"{largest[0]}x{largest[1]}"
            takes = low if self.manifest.fixed_size else f"{low} to {high}"
            raise SessionError(f"the engine takes pictures of {takes}, not {height}x{width}")
        if height > largest[0] or width > largest[1]:
            # Whoever cuts pictures into tiles then tries smaller ones.
            raise OutOfMemoryError(
                f"{height}x{width} is larger than {largest[0]}x{largest[1]}, the largest size that this engine was built for"
            )
