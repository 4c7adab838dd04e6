"""A TensorRT made of numpy, which repeats pixels, on a GPU made of lists; both note what happens to them."""

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime.errors import SessionError
from flashrib.runtime.nvidia.cuda import Gpu
from flashrib.runtime.sessions import tensorrt as tensorrt_session
from tests.runtime.sessions.engines import PLAN

# Changes of the manifest in tests.runtime.sessions.engines that make it one of the flavour tensorrt, for the GPU that is installed here.
TENSORRT = {"flavour": "tensorrt", "version": "11.4.0", "targets": ("sm86",)}


class FakeBuffer:
    """Memory on the "GPU"; its address is its index in the device's list."""

    def __init__(self, device: "FakeDevice") -> None:
        self.device = device
        self.size = 0
        self.content: Any = None
        self.address = types.SimpleNamespace(value=len(device.buffers))
        device.buffers.append(self)

    def reserve(self, size: int) -> int:
        if size > self.size:
            self.device.allocations.append(size)
            self.size = size
        return int(self.address.value)

    def free(self) -> None:
        self.size = 0


class FakeGraph:
    """Does again what was recorded, at the addresses and with the shape that it was recorded with."""

    def __init__(self, device: "FakeDevice", work: Callable[[], None]) -> None:
        self.device, self.work = device, work
        device.graphs.append(self)

    def launch(self) -> None:
        self.device.log.append("launch")
        self.work()

    def free(self) -> None:
        self.device.graphs.remove(self)


class FakeDevice:
    stream = 7
    made: "list[FakeDevice]"

    def __init__(self) -> None:
        self.buffers: list[FakeBuffer] = []
        self.allocations: list[int] = []
        self.graphs: list[FakeGraph] = []
        self.recorded: list[Callable[[], None]] | None = None
        self.log: list[str] = []  # what came to the stream, and recordings
        self.closed = False
        FakeDevice.made.append(self)

    def put(self, work: Callable[[], None]) -> None:
        """Run work on the "stream", or record it."""
        if self.recorded is None:
            self.log.append("run")
            work()
        else:
            self.recorded.append(work)

    def record(self, work: Callable[[], bool]) -> FakeGraph:
        self.log.append("record")
        self.recorded = []
        try:
            if not work():
                raise SessionError("CUDA failed in cuStreamEndCapture: capture was invalidated (901)")
            (recorded,) = self.recorded
        finally:
            self.recorded = None
        return FakeGraph(self, recorded)

    def use(self) -> None:
        assert not self.closed

    def buffer(self) -> FakeBuffer:
        return FakeBuffer(self)

    def upload(self, array: NDArray[Any], buffer: FakeBuffer) -> None:
        assert array.flags.c_contiguous
        assert array.nbytes <= buffer.size
        buffer.content = array.copy()

    def download(self, buffer: FakeBuffer, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        assert (buffer.content.shape, buffer.content.dtype) == (shape, np.dtype(dtype))
        return np.asarray(buffer.content)

    def close(self) -> None:
        assert all(buffer.size == 0 for buffer in self.buffers)
        assert not self.graphs
        self.closed = True


class FakeContext:
    """Repeats every pixel twice, as an engine of scale 2 might, and adds its noise where it is given some."""

    works = True
    recordable = True
    configuration: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes = {**getattr(self, "shapes", {}), name: shape}
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses = {**getattr(self, "addresses", {}), name: address}
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == FakeDevice.stream
        device = FakeDevice.made[-1]
        buffers = {end: device.buffers[address] for end, address in self.addresses.items()}
        shapes = dict(self.shapes)

        def work() -> None:
            given = {end: buffers[end].content for end in shapes}
            assert shapes == {end: content.shape for end, content in given.items()}
            large = given["input"].repeat(2, axis=2).repeat(2, axis=3)
            noise = given["noise"][:, :, : large.shape[2], : large.shape[3]] if "noise" in given else 0
            buffers["output"].content = large + noise

        if device.recorded is not None and not self.recordable:
            return False
        device.put(work)
        return self.works


def tensorrt(
    version: str = "1.7.1.116",
    *,
    engine: bool = True,
    context: bool = True,
    works: bool = True,
    recordable: bool = True,
) -> Any:
    """A module with as much of TensorRT's API as the session uses; its contexts are kept in `contexts`."""
    contexts: list[FakeContext] = []

    class ILogger:
        pass

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            assert plan == PLAN
            if engine:
                return types.SimpleNamespace(
                    create_execution_context=self.create, create_runtime_config=types.SimpleNamespace
                )
            self.logger.log(types.SimpleNamespace(name="ERROR"), "the plan\nis strange")
            return None

        def create(self, configuration: Any = None) -> Any:
            made = FakeContext()
            made.works, made.recordable, made.configuration = works, recordable, configuration
            contexts.append(made)
            return made if context else None

    strategies = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole graph")
    return types.SimpleNamespace(
        __version__=version, ILogger=ILogger, Runtime=Runtime, CudaGraphStrategy=strategies, contexts=contexts
    )


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a GPU of compute capability 8.6 and TensorRT-RTX 1.7.1.116 into this process."""
    FakeDevice.made = []
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", tensorrt())
    monkeypatch.setattr(tensorrt_session, "find_gpu", lambda: Gpu("NVIDIA Test", (8, 6)))
    monkeypatch.setattr(tensorrt_session, "Device", FakeDevice)
