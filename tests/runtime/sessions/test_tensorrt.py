"""The session without a GPU: what it refuses, in which order, and, on a TensorRT made of numpy, what it runs."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime.errors import FlashribError, MissingPackageError, ModelError, OutOfMemoryError, SessionError
from flashrib.runtime.nvidia.cuda import Driver, Gpu
from flashrib.runtime.sessions import tensorrt as module
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.table import open_session
from flashrib.runtime.sessions.tensorrt import TensorRTSession
from tests.runtime.sessions.engines import METADATA, write_engine
from tests.runtime.sessions.fake_tensorrt import TENSORRT, FakeDevice, install, tensorrt

FIXED = ((64, 96),) * 3


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def ramp(*shape: int) -> NDArray[np.float32]:
    return np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


@pytest.mark.usefixtures("gpu")
def test_what_it_promises(tmp_path: Path) -> None:
    session = TensorRTSession(write_engine(tmp_path / "a.engine"))
    assert isinstance(session, Session)
    info = session.info
    assert (info.scale, info.alignment, info.minimum, info.channels) == (2, 64, 64, 3)
    assert (info.io, info.fixed_size, info.whole_picture, info.precision) == ("fp32", None, False, "fp16")
    fixed = TensorRTSession(write_engine(tmp_path / "b.engine", shapes=FIXED))
    assert (fixed.info.minimum, fixed.info.fixed_size) == (33, (64, 96))


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
@pytest.mark.parametrize("io", ["float32", "float16"])
def test_noise_is_a_second_input(io: str, tmp_path: Path) -> None:
    noisy = dataclasses.replace(METADATA, noise=1.0)
    session = TensorRTSession(write_engine(tmp_path / "a.engine", model=noisy, batch=2, io=io))
    batch, noise = ramp(3, 3, 64, 96), ramp(3, 3, 128, 256)[:, :, ::-1]
    large = batch.astype(io).repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(session.run(batch), large.astype(np.float32))
    wanted = large + noise[:, :, :, :192].astype(io)
    np.testing.assert_array_equal(session.run(batch, noise), wanted.astype(np.float32))


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
def test_cuda_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run of a shape is a plain one, the second is recorded; another shape ends the graph."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt("11.4.0"))
    session = TensorRTSession(write_engine(tmp_path / "a.engine", **TENSORRT), cuda_graph=True)
    device = FakeDevice.made[0]
    sides = (64, 64, 64, 96, 64, 64, 128, 128)
    for index, side in enumerate(sides):
        batch = ramp(1, 3, 64, side) * (index + 1)
        np.testing.assert_array_equal(session.run(batch), batch.repeat(2, axis=2).repeat(2, axis=3))
        assert len(device.graphs) <= 1
    plain, recorded, again = ["run"], ["record", "launch"], ["launch"]
    assert device.log == [*plain, *recorded, *again, *plain, *plain, *recorded, *plain, *recorded]
    session.close()
    assert device.closed
    assert not device.graphs


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_tensorrt_rtx_makes_its_graphs_itself(
    cuda_graph: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tensorrt()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    session = TensorRTSession(write_engine(tmp_path / "a.engine"), cuda_graph=cuda_graph)
    for _ in range(3):
        session.run(ramp(1, 3, 64, 64))
    assert FakeDevice.made[0].log == ["run"] * 3
    (context,) = fake.contexts
    assert getattr(context.configuration, "cuda_graph_strategy", None) == ("whole graph" if cuda_graph else None)


@pytest.mark.usefixtures("gpu")
def test_no_graph_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt("11.4.0"))
    session = TensorRTSession(write_engine(tmp_path / "a.engine", **TENSORRT))
    for _ in range(3):
        session.run(ramp(1, 3, 64, 64))
    assert FakeDevice.made[0].log == ["run"] * 3


@pytest.mark.usefixtures("gpu")
def test_an_engine_that_cannot_be_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt("11.4.0", recordable=False))
    session = TensorRTSession(write_engine(tmp_path / "a.engine", **TENSORRT), cuda_graph=True)
    session.run(ramp(1, 3, 64, 64))
    with pytest.raises(SessionError, match=r"^TensorRT cannot run .* \(CUDA failed in .*\): leave --cuda-graph out$"):
        session.run(ramp(1, 3, 64, 64))
    assert session.run(ramp(1, 3, 64, 96)).shape == (1, 3, 128, 192)  # a shape of which nothing is recorded yet
    session.close()


@pytest.mark.usefixtures("gpu")
def test_a_buffer_that_moved_ends_the_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of a larger size does not fit; its input did, and lies elsewhere now."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt("11.4.0"))
    session = TensorRTSession(write_engine(tmp_path / "a.engine", **TENSORRT), cuda_graph=True)
    small, large = ramp(1, 3, 64, 64), ramp(1, 3, 128, 128)
    session.run(small)
    session.run(small)
    device = FakeDevice.made[0]
    given, made = device.buffers
    moved = device.buffer()
    reserve = made.reserve

    def full(size: int) -> int:
        if size > made.size:
            given.address.value = moved.address.value
            raise OutOfMemoryError("the GPU's memory is full")
        return reserve(size)

    monkeypatch.setattr(made, "reserve", full)
    with pytest.raises(OutOfMemoryError):
        session.run(large)
    device.buffers[moved.address.value] = given
    device.buffers[0] = moved
    np.testing.assert_array_equal(session.run(small), small.repeat(2, axis=2).repeat(2, axis=3))
    assert device.log == ["run", "record", "launch", "run"]


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
        monkeypatch.setitem(sys.modules, name, None)
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
    monkeypatch.setattr("flashrib.runtime.nvidia.cuda._LIBRARY", "libno-such-driver.so.1")
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
    session = open_session(path, cuda_graph=True)
    assert isinstance(session, TensorRTSession)
    assert session._context.configuration.cuda_graph_strategy == "whole graph"
    for kind in ("auto", "tensorrt"):
        assert isinstance(open_session(path, kind, arch="sst-light", scale=2, device="cuda"), TensorRTSession)
