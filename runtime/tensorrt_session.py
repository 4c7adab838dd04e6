"""Sessions for engines of both flavours, TensorRT-RTX and TensorRT, on the first GPU.

Everything that can be wrong with the file, the installed version or the GPU is found before anything is allocated. What remains here
is thin on purpose: shapes in, two buffers, one call.
"""

import os
from typing import Any

import numpy as np

from flashrib.runtime.cuda import Device, find_gpu
from flashrib.runtime.engine_manifest import check_gpu, check_version, read_engine, read_manifest
from flashrib.runtime.errors import OutOfMemoryError, SessionError
from flashrib.runtime.session import Batch
from flashrib.runtime.tensorrt_flavours import FLAVOURS, collecting_logger, first_error, load_flavour


class TensorRTSession:
    """Runs an engine with TensorRT or TensorRT-RTX; follows `flashrib.runtime.session.Session`.

    Attributes:
        manifest: what the engine says about itself.
        metadata: what the ONNX file that it was built from said about itself.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Load the engine `path`, whose manifest lies beside it.

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
        self._input, self._output = self._device.buffer(), self._device.buffer()
        self._runtime = trt.Runtime(self._logger)
        if self.manifest.version_compatible:
            # Such engines carry the runtime of their version, which is code; the hash has vouched for it.
            self._runtime.engine_host_code_allowed = True
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = self._engine and self._engine.create_execution_context()
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

        self.metadata = self.manifest.model
        self.scale = self.metadata.scale
        self.multiple = self.metadata.alignment
        self.fixed_size = self.manifest.fixed_size
        self.minimum = (
            self.metadata.minimum if self.fixed_size else max(self.metadata.minimum, *self.manifest.shapes[0])
        )
        self.whole_picture = self.metadata.whole_picture
        self.channels = 3
        self.dtype = self.manifest.io

    def run(self, batch: Batch) -> Batch:
        """Upscale `batch` (B, 3, H, W), RGB, nominally 0..1, float32 -> (B, 3, scale*H, scale*W) float32, not clamped.

        Raises:
            OutOfMemoryError: larger than the largest size that the engine was built for, or the GPU's memory is full.
            SessionError: the session is closed, the size is not one that the engine takes, or TensorRT failed.
        """
        if self._device is None:
            raise SessionError("the TensorRT session is closed: make a new one")
        self._check_size(batch.shape[2], batch.shape[3])
        self._device.use()
        together = self.manifest.batch
        results = [self._run_whole(batch[first : first + together]) for first in range(0, len(batch), together)]
        return np.concatenate(results) if len(results) > 1 else results[0]

    def close(self) -> None:
        """Free the engine and its memory on the GPU; calling it again does nothing."""
        if self._device is not None:
            # The context uses the engine, and the engine the runtime.
            self._context = None
            self._engine = None
            self._runtime = None
            self._input.free()
            self._output.free()
            self._device.close()
            self._device = None

    def _run_whole(self, pictures: Batch) -> Batch:
        """Run up to as many pictures as the engine takes together; what is missing is filled with black."""
        assert self._device is not None
        count, channels, height, width = pictures.shape
        batch = self.manifest.batch
        whole = np.zeros((batch, channels, height, width), self.dtype)
        whole[:count] = pictures
        shape = (batch, channels, self.scale * height, self.scale * width)
        self._input.reserve(whole.nbytes)
        self._output.reserve(int(np.prod(shape)) * whole.itemsize)
        self._device.upload(whole, self._input)
        del self._logger.messages[:]
        context = self._context
        done = (
            context.set_input_shape("input", whole.shape)
            and context.set_tensor_address("input", self._input.address.value)
            and context.set_tensor_address("output", self._output.address.value)
            and context.execute_async_v3(self._device.stream)
        )
        if not done:
            raise SessionError(
                f"{self._product} failed on a batch of {batch}x{channels}x{height}x{width}:"
                f" {first_error(self._logger.messages)}"
            )
        result: Batch = self._device.download(self._output, shape, self.dtype)[:count].astype(np.float32, copy=False)
        return result

    def _check_size(self, height: int, width: int) -> None:
        smallest, _, largest = self.manifest.shapes
        if self.fixed_size not in (None, (height, width)) or height < smallest[0] or width < smallest[1]:
            low, high = f"{smallest[0]}x{smallest[1]}", f"{largest[0]}x{largest[1]}"
            takes = low if self.fixed_size else f"{low} to {high}"
            raise SessionError(f"the engine takes pictures of {takes}, not {height}x{width}")
        if height > largest[0] or width > largest[1]:
            # Whoever cuts pictures into tiles then tries smaller ones.
            raise OutOfMemoryError(
                f"{height}x{width} is larger than {largest[0]}x{largest[1]}, the largest size that this engine was built for"
            )
