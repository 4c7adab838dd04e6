"""What a session needs of CUDA: which GPU there is, buffers on it, copies, a stream, graphs. Nothing but the driver's own library.

The driver's API on the device's primary context, which is the one that TensorRT uses as well; no CUDA toolkit has to be installed.
"""

import ctypes
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import OutOfMemoryError, SessionError

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_OUT_OF_MEMORY, _NO_DEVICE = 2, 100  # CUresult
_MAJOR, _MINOR = 75, 76  # CUdevice_attribute
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may use CUDA meanwhile


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A GPU: its name and compute capability (major, minor)."""

    name: str
    capability: tuple[int, int]


class Driver:
    """The driver's library; every call is checked.

    Raises:
        SessionError: no driver, or no GPU.
    """

    def __init__(self) -> None:
        try:
            self._library: Any = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise SessionError(
                f"there is no NVIDIA driver on this machine ({_LIBRARY} cannot be loaded), and an engine runs on an NVIDIA GPU:"
                " run the ONNX file instead"
            ) from error
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver.

        Raises:
            OutOfMemoryError: the GPU's memory is full.
            SessionError: it failed otherwise.
        """
        result = getattr(self._library, name)(*arguments)
        if result == 0:
            return
        if result == _OUT_OF_MEMORY:
            raise OutOfMemoryError(
                "the GPU's memory is full: use a smaller tile, or end other programs that use the GPU"
            )
        if result == _NO_DEVICE:
            raise SessionError(
                "the NVIDIA driver finds no GPU, and an engine runs on one: is it hidden by CUDA_VISIBLE_DEVICES? Otherwise run"
                " the ONNX file instead"
            )
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(result, ctypes.byref(text))
        raise SessionError(f"CUDA failed in {name}: {(text.value or b'error').decode()} ({result})")

    def device(self) -> ctypes.c_int:
        """Return the handle of the first GPU."""
        handle = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(handle), 0)
        return handle


def find_gpu() -> Gpu:
    """Return the first GPU; allocates nothing on it.

    Raises:
        SessionError: no driver, or no GPU.
    """
    driver = Driver()
    device, name = driver.device(), ctypes.create_string_buffer(256)
    driver.call("cuDeviceGetName", name, len(name), device)
    capability = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        driver.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        capability.append(value.value)
    return Gpu(name.value.decode(), (capability[0], capability[1]))


class Buffer:
    """Memory on the GPU that grows on demand and is kept."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._size = 0
        self.address = ctypes.c_uint64()

    def reserve(self, size: int) -> int:
        """Return the address of at least `size` bytes; what was in the buffer may be lost."""
        if size > self._size:
            self.free()
            self._driver.call("cuMemAlloc_v2", ctypes.byref(self.address), ctypes.c_size_t(size))
            self._size = size
        return self.address.value

    def free(self) -> None:
        """Give the memory back; calling it again does nothing."""
        if self._size:
            self._size = 0
            self._driver.call("cuMemFree_v2", self.address)


class Graph:
    """Work of a stream that was recorded once and is launched as a whole, which costs the CPU one call instead of hundreds."""

    def __init__(self, driver: Driver, recorded: ctypes.c_void_p, stream: ctypes.c_void_p) -> None:
        self._driver, self._stream = driver, stream
        self._executable = ctypes.c_void_p()
        flags = ctypes.c_ulonglong(0)
        driver.call("cuGraphInstantiateWithFlags", ctypes.byref(self._executable), recorded, flags)

    def launch(self) -> None:
        """Put the work on the stream, with the addresses that it was recorded with."""
        self._driver.call("cuGraphLaunch", self._executable, self._stream)

    def free(self) -> None:
        """Give the graph back; calling it again does nothing."""
        if self._executable:
            self._driver.call("cuGraphExecDestroy", self._executable)
            self._executable = ctypes.c_void_p()


class Device:
    """The first GPU with one stream; copies and work on it follow each other in order."""

    def __init__(self) -> None:
        self._driver = Driver()
        self._device = self._driver.device()
        self._context, self._stream = ctypes.c_void_p(), ctypes.c_void_p()
        self._driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        try:
            self.use()
            self._driver.call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)
        except SessionError:
            self._driver.call("cuDevicePrimaryCtxRelease_v2", self._device)
            raise

    def use(self) -> None:
        """Make this GPU the one of the calling thread."""
        self._driver.call("cuCtxSetCurrent", self._context)

    @property
    def stream(self) -> int:
        """Handle of the stream, as TensorRT takes it."""
        return self._stream.value or 0

    def buffer(self) -> Buffer:
        """Return a new, empty buffer."""
        return Buffer(self._driver)

    def upload(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Copy a contiguous array to the GPU; it must live until `synchronize` returns."""
        source = ctypes.c_void_p(array.ctypes.data)
        self._driver.call("cuMemcpyHtoDAsync_v2", buffer.address, source, ctypes.c_size_t(array.nbytes), self._stream)

    def download(self, buffer: Buffer, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Wait for the stream and return the first bytes of a buffer as an array."""
        array = np.empty(shape, dtype)
        target = ctypes.c_void_p(array.ctypes.data)
        self._driver.call("cuMemcpyDtoHAsync_v2", target, buffer.address, ctypes.c_size_t(array.nbytes), self._stream)
        self._driver.call("cuStreamSynchronize", self._stream)
        return array

    def record(self, work: Callable[[], bool]) -> Graph:
        """Record what `work` puts on the stream, in place of running it.

        Args:
            work: puts work on the stream, with asynchronous calls alone, and says whether it could.

        Raises:
            SessionError: it cannot be recorded; the stream can be used further.
        """
        recorded = ctypes.c_void_p()
        self._driver.call("cuStreamBeginCapture_v2", self._stream, _THREAD_LOCAL)
        try:
            try:
                done = work()
            finally:
                # Whatever happened: until then the stream takes nothing else.
                self._driver.call("cuStreamEndCapture", self._stream, ctypes.byref(recorded))
            if not done:
                raise SessionError("the work could not be put on the stream")
            return Graph(self._driver, recorded, self._stream)
        finally:
            if recorded:
                self._driver.call("cuGraphDestroy", recorded)

    def close(self) -> None:
        """Free the stream and the context; buffers and graphs must be free already. Calling it again does nothing."""
        if self._stream:
            self._driver.call("cuStreamDestroy_v2", self._stream)
            self._driver.call("cuDevicePrimaryCtxRelease_v2", self._device)
            self._stream = ctypes.c_void_p()
