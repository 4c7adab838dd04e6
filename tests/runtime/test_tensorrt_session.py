"""The session without a GPU: what it refuses, in which order, and, on a TensorRT made of numpy, what it runs."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime import tensorrt_session as module
from flashrib.runtime.cuda import Driver, Gpu
from flashrib.runtime.errors import FlashribError, MissingPackageError, ModelError, OutOfMemoryError, SessionError
from flashrib.runtime.open_session import open_session
from flashrib.runtime.session import Session
from flashrib.runtime.tensorrt_session import TensorRTSession
from tests.runtime.engines import PLAN, write_engine

FIXED = ((64, 96),) * 3


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


class FakeDevice:
    stream = 7
    made: "list[FakeDevice]"

    def __init__(self) -> None:
        self.buffers: list[FakeBuffer] = []
        self.allocations: list[int] = []
        self.closed = False
        FakeDevice.made.append(self)

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
        self.closed = True


class FakeContext:
    """Repeats every pixel twice, as an engine of scale 2 might."""

    works = True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = (name, shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses = {**getattr(self, "addresses", {}), name: address}
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == FakeDevice.stream
        buffers = FakeDevice.made[-1].buffers
        given = buffers[self.addresses["input"]].content
        assert self.shape == ("input", given.shape)
        buffers[self.addresses["output"]].content = given.repeat(2, axis=2).repeat(2, axis=3)
        return self.works


def tensorrt(version: str = "1.7.1.116", *, engine: bool = True, context: bool = True, works: bool = True) -> Any:
    """A module with as much of TensorRT's API as the session uses."""

    class ILogger:
        pass

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger
            self.engine_host_code_allowed = False

        def deserialize_cuda_engine(self, plan: bytes) -> Any:
            assert plan == PLAN
            if engine:
                return types.SimpleNamespace(create_execution_context=self.create)
            self.logger.log(types.SimpleNamespace(name="ERROR"), "the plan\nis strange")
            return None

        def create(self) -> Any:
            made = FakeContext()
            made.works = works
            return made if context else None

    return types.SimpleNamespace(__version__=version, ILogger=ILogger, Runtime=Runtime)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDevice.made = []
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", tensorrt())
    monkeypatch.setattr(module, "find_gpu", lambda: Gpu("NVIDIA Test", (8, 6)))
    monkeypatch.setattr(module, "Device", FakeDevice)


def ramp(*shape: int) -> NDArray[np.float32]:
    return np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.usefixtures("gpu")
def test_what_it_promises(tmp_path: Path) -> None:
    session = TensorRTSession(write_engine(tmp_path / "a.engine"))
    assert isinstance(session, Session)
    assert (session.scale, session.multiple, session.minimum, session.channels) == (2, 64, 64, 3)
    assert (session.dtype, session.fixed_size, session.whole_picture) == ("float32", None, False)
    assert session.metadata.precision == "fp16"
    fixed = TensorRTSession(write_engine(tmp_path / "b.engine", shapes=FIXED))
    assert (fixed.minimum, fixed.fixed_size) == (33, (64, 96))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("io", ["float32", "float16"])
def test_run(io: str, tmp_path: Path) -> None:
    session = TensorRTSession(write_engine(tmp_path / "a.engine", io=io))
    for shape in ((1, 3, 64, 96), (1, 3, 128, 128), (2, 3, 65, 70)):
        batch = ramp(*shape)
        output = session.run(batch)
        assert output.dtype == np.float32
        np.testing.assert_array_equal(output, batch.astype(io).astype(np.float32).repeat(2, axis=2).repeat(2, axis=3))


@pytest.mark.usefixtures("gpu")
def test_buffers_are_reused(tmp_path: Path) -> None:
    session = TensorRTSession(write_engine(tmp_path / "a.engine"))
    for shape in ((1, 3, 64, 64), (1, 3, 128, 128), (1, 3, 128, 128), (1, 3, 64, 64)):
        session.run(ramp(*shape))
    assert FakeDevice.made[0].allocations == [64 * 64 * 12, 4 * 64 * 64 * 12, 128 * 128 * 12, 4 * 128 * 128 * 12]


@pytest.mark.usefixtures("gpu")
def test_a_batch_is_filled(tmp_path: Path) -> None:
    session = TensorRTSession(write_engine(tmp_path / "a.engine", batch=2))
    batch = ramp(3, 3, 64, 64)
    np.testing.assert_array_equal(session.run(batch), batch.repeat(2, axis=2).repeat(2, axis=3))


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("shapes", "size", "error", "message"),
    [
        (FIXED, (96, 64), SessionError, "takes pictures of 64x96, not 96x64"),
        (((64, 64), (64, 96), (128, 128)), (63, 96), SessionError, "takes pictures of 64x64 to 128x128, not 63x96"),
        (((64, 64), (64, 96), (128, 128)), (64, 129), OutOfMemoryError, "64x129 is larger than 128x128"),
    ],
)
def test_sizes(shapes: Any, size: tuple[int, int], error: type[Exception], message: str, tmp_path: Path) -> None:
    session = TensorRTSession(write_engine(tmp_path / "a.engine", shapes=shapes))
    with pytest.raises(error, match=message):
        session.run(ramp(1, 3, *size))


@pytest.mark.usefixtures("gpu")
def test_close(tmp_path: Path) -> None:
    session = TensorRTSession(write_engine(tmp_path / "a.engine"))
    session.run(ramp(1, 3, 64, 64))
    session.close()
    session.close()
    assert FakeDevice.made[0].closed
    with pytest.raises(SessionError, match="is closed"):
        session.run(ramp(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("fake", "error", "message"),
    [
        (tensorrt(engine=False), SessionError, r"a\.engine: TensorRT-RTX refuses this engine: the plan is strange"),
        (tensorrt(context=False), OutOfMemoryError, r"a\.engine: does not fit .* 152 MB beside its weights"),
        (tensorrt("1.6.0"), SessionError, r"was built by TensorRT-RTX 1\.7\.1\.116, but 1\.6\.0 is installed"),
        (tensorrt("1.1.0"), SessionError, r"TensorRT-RTX 1\.1\.0 is too old"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_refusals(
    fake: Any, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    with pytest.raises(error, match=message) as info:
        TensorRTSession(write_engine(tmp_path / "a.engine"))
    assert "\n" not in str(info.value)
    assert all(device.closed for device in FakeDevice.made)


@pytest.mark.usefixtures("gpu")
def test_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", tensorrt(works=False))
    session = TensorRTSession(write_engine(tmp_path / "a.engine"))
    with pytest.raises(SessionError, match="TensorRT-RTX failed on a batch of 1x3x64x64"):
        session.run(ramp(1, 3, 64, 64))


@pytest.mark.usefixtures("gpu")
def test_the_order_of_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, package, version, GPU: each is refused although everything after it is wrong too, and nothing is allocated."""
    path = write_engine(tmp_path / "a.engine", version="1.6.0")
    good = path.read_bytes()

    def no_gpu() -> Gpu:
        raise SessionError("there is no NVIDIA driver")

    def refused(error: type[FlashribError], message: str) -> None:
        with pytest.raises(error, match=message):
            TensorRTSession(path)

    monkeypatch.setattr(module, "find_gpu", no_gpu)
    for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    path.write_bytes(good[:-1] + b"\0")
    refused(ModelError, "is not the engine that its manifest describes")
    path.write_bytes(good)
    refused(MissingPackageError, r"pip install 'flashrib\[rtx\]'")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", tensorrt())
    refused(SessionError, "was built by TensorRT-RTX 1.6.0")
    write_engine(path, targets=("sm120",))
    refused(SessionError, "there is no NVIDIA driver")
    monkeypatch.setattr(module, "find_gpu", lambda: Gpu("NVIDIA Test", (8, 6)))
    refused(SessionError, "of compute capability 12.0")
    assert FakeDevice.made == []


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashrib.runtime.cuda._LIBRARY", "libno-such-driver.so.1")
    with pytest.raises(SessionError, match=r"no NVIDIA driver on this machine \(libno-such-driver\.so\.1 cannot"):
        Driver()


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        (2, OutOfMemoryError, "the GPU's memory is full"),
        (100, SessionError, "finds no GPU"),
        (700, SessionError, r"CUDA failed in cuInit: an illegal thing \(700\)"),
    ],
)
def test_errors_of_the_driver(code: int, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def cuInit(self, flags: int) -> int:  # noqa: N802
            return code

        def cuGetErrorString(self, result: int, text: Any) -> int:  # noqa: N802
            text._obj.value = b"an illegal thing"
            return 0

    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    with pytest.raises(error, match=message):
        Driver()


@pytest.mark.usefixtures("gpu")
def test_open_session(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.bin")
    for kind in ("auto", "tensorrt"):
        assert isinstance(open_session(path, kind, arch="sst-light", scale=2, device="cuda"), TensorRTSession)
