"""The calls into the driver, against a library with the signatures of cuda.h whose "GPU" is the host's memory."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from flashrib.runtime.cuda import Device, Gpu, find_gpu
from flashrib.runtime.errors import OutOfMemoryError, SessionError

# Types and names as in cuda.h: CUdevice is an int, CUdeviceptr an unsigned 64 bit number, contexts and streams are pointers.
SOURCE = """
#include <stdlib.h>
#include <string.h>
typedef unsigned long long ptr;
static int live = 0;
static char context, stream;
int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 40 + ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Fake 9000", length); return device != 40; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 12 : attribute == 76 ? 1 : -1; return device != 40; }
int cuGetErrorString(int code, const char **text) { *text = code == 1 ? "invalid argument" : "?"; return 0; }
int cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; live++; return device != 40; }
int cuDevicePrimaryCtxRelease_v2(int device) { live--; return device != 40; }
int cuCtxSetCurrent(void *given) { return given != &context; }
int cuStreamCreate(void **made, unsigned flags) { *made = &stream; live++; return flags != 1; }
int cuStreamDestroy_v2(void *given) { live--; return given != &stream; }
int cuStreamSynchronize(void *given) { return given != &stream; }
int cuMemAlloc_v2(ptr *address, size_t size) {
  if (size > 1ull << 40) return 2;
  *address = (ptr)malloc(size); live++; return 0; }
int cuMemFree_v2(ptr address) { free((void *)address); live--; return 0; }
int cuMemcpyHtoDAsync_v2(ptr to, const void *from, size_t size, void *given) {
  memcpy((void *)to, from, size); return given != &stream; }
int cuMemcpyDtoHAsync_v2(void *to, ptr from, size_t size, void *given) {
  memcpy(to, (void *)from, size); return given != &stream; }
int cuFake_live(int *value) { *value = live; return 0; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here, so no library can be made that stands for the driver")
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "cuda.c").write_text(SOURCE)
    made: Path = folder / "libfakecuda.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(folder / "cuda.c"), "-o", str(made)], check=True)
    return str(made)


@pytest.fixture(autouse=True)
def _driver(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashrib.runtime.cuda._LIBRARY", library)


def test_find_gpu() -> None:
    assert find_gpu() == Gpu("Fake 9000", (12, 1))


def test_copies_there_and_back() -> None:
    device = Device()
    device.use()
    assert device.stream != 0
    buffer = device.buffer()
    addresses = []
    for size in (1000, 2000, 10):
        array = np.arange(size, dtype=np.float32).reshape(2, -1)
        addresses.append(buffer.reserve(array.nbytes))
        device.upload(array, buffer)
        np.testing.assert_array_equal(device.download(buffer, array.shape, "float32"), array)
    assert addresses[1] == addresses[2]  # large enough already
    for _ in range(2):
        buffer.free()
        device.close()
    left = np.zeros(1, np.int32)
    device._driver.call("cuFake_live", left.ctypes.data_as(ctypes.c_void_p))
    assert left[0] == 0


def test_full_memory_leaves_a_buffer_that_works() -> None:
    device = Device()
    buffer = device.buffer()
    buffer.reserve(100)
    with pytest.raises(OutOfMemoryError, match="the GPU's memory is full"):
        buffer.reserve(1 << 50)
    assert buffer.reserve(100) != 0
    buffer.free()
    device.close()


def test_an_error_says_which_call() -> None:
    device = Device()
    with pytest.raises(SessionError, match=r"CUDA failed in cuInit: invalid argument \(1\)"):
        device._driver.call("cuInit", 5)
    device.close()
