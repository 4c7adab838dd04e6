"""What the calls into the CUDA driver must do, on the stand-in as on a GPU. Each check closes its device."""

import ctypes

import numpy as np
import pytest

from flashrib.runtime.errors import OutOfMemoryError, SessionError
from flashrib.runtime.nvidia.cuda import Buffer, Device


def check_copies(device: Device) -> None:
    """Arrays come back as they went, from a buffer that grows where it must and is kept where it need not."""
    device.use()
    assert device.stream != 0
    buffer = device.buffer()
    addresses = []
    for size in (1000, 2_000_000, 10):
        array = np.arange(size, dtype=np.float32).reshape(2, -1)
        addresses.append(buffer.reserve(array.nbytes))
        device.upload(array, buffer)
        np.testing.assert_array_equal(device.download(buffer, array.shape, "float32"), array)
    assert addresses[1] == addresses[2]  # large enough already
    for _ in range(2):
        buffer.free()
        device.close()


def check_full_memory(device: Device) -> None:
    """A buffer that cannot grow can still be used."""
    buffer = device.buffer()
    buffer.reserve(100)
    with pytest.raises(OutOfMemoryError, match="the GPU's memory is full"):
        buffer.reserve(1 << 50)
    assert buffer.reserve(100) != 0
    buffer.free()
    device.close()


def fill(device: Device, buffer: Buffer, value: int, size: int) -> bool:
    """Fill the first bytes of a buffer, on the stream."""
    stream = ctypes.c_void_p(device.stream)
    device._driver.call("cuMemsetD8Async", buffer.address, ctypes.c_ubyte(value), ctypes.c_size_t(size), stream)
    return True


def check_recording(device: Device) -> None:
    """Recording runs nothing; launching does, as often as it is called, on what lies there then."""
    buffer = device.buffer()
    before = np.arange(1000, dtype=np.uint8)
    buffer.reserve(before.nbytes)
    device.upload(before, buffer)
    graph = device.record(lambda: fill(device, buffer, 7, 600))
    np.testing.assert_array_equal(device.download(buffer, before.shape, "uint8"), before)
    for _ in range(3):
        device.upload(before, buffer)
        graph.launch()
        after = device.download(buffer, before.shape, "uint8")
        assert set(after[:600]) == {7}
        np.testing.assert_array_equal(after[600:], before[600:])
    graph.free()
    buffer.free()
    device.close()


def check_refused_recording(device: Device) -> None:
    """Waiting for the stream cannot be recorded; afterwards the stream is as good as new."""
    buffer = device.buffer()
    buffer.reserve(1000)

    def wait() -> bool:
        device._driver.call("cuStreamSynchronize", ctypes.c_void_p(device.stream))
        return True

    with pytest.raises(SessionError, match=r"CUDA failed in cuStreamEndCapture: .* \(90\d\)"):
        device.record(wait)
    fill(device, buffer, 9, 1000)
    assert set(device.download(buffer, (1000,), "uint8")) == {9}
    graph = device.record(lambda: fill(device, buffer, 8, 1000))
    graph.launch()
    assert set(device.download(buffer, (1000,), "uint8")) == {8}
    graph.free()
    buffer.free()
    device.close()
