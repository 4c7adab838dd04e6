"""The calls into the driver, against a library with the signatures of cuda.h whose "GPU" is the host's memory."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from flashrib.runtime.errors import SessionError
from flashrib.runtime.nvidia.cuda import Device, Gpu, find_gpu
from tests.runtime.nvidia.cuda_checks import check_copies, check_full_memory, check_recording, check_refused_recording

# Types and names as in cuda.h: CUdevice is an int, CUdeviceptr an unsigned 64 bit number, contexts and streams are pointers.
SOURCE = """
#include <stdlib.h>
#include <string.h>
typedef unsigned long long ptr;
static int live = 0;
static char context, stream;
/* What is put on the stream while it is recorded: one fill. */
struct fill { ptr to; unsigned char value; size_t size; };
static int recording = 0, broken = 0;
static struct fill noted;
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
int cuStreamSynchronize(void *given) {
  if (recording) { broken = 1; return 900; }
  return given != &stream; }
int cuMemsetD8Async(ptr to, unsigned char value, size_t size, void *given) {
  if (recording) noted = (struct fill){to, value, size};
  else memset((void *)to, value, size);
  return given != &stream; }
int cuStreamBeginCapture_v2(void *given, int mode) { recording = 1; broken = 0; return given != &stream || mode != 1; }
int cuStreamEndCapture(void *given, void **graph) {
  recording = 0;
  if (broken) return 901;
  *graph = malloc(sizeof noted); *(struct fill *)*graph = noted; live++; return given != &stream; }
int cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
  *made = malloc(sizeof noted); *(struct fill *)*made = *(struct fill *)graph; live++; return flags != 0; }
int cuGraphDestroy(void *graph) { free(graph); live--; return 0; }
int cuGraphExecDestroy(void *graph) { free(graph); live--; return 0; }
int cuGraphLaunch(void *graph, void *given) {
  struct fill *f = graph; memset((void *)f->to, f->value, f->size); return given != &stream; }
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
    monkeypatch.setattr("flashrib.runtime.nvidia.cuda._LIBRARY", library)


def test_find_gpu() -> None:
    assert find_gpu() == Gpu("Fake 9000", (12, 1))


def live(device: Device) -> int:
    """Number of things that were made and not given back."""
    left = np.zeros(1, np.int32)
    device._driver.call("cuFake_live", left.ctypes.data_as(ctypes.c_void_p))
    return int(left[0])


def test_copies_there_and_back() -> None:
    device = Device()
    check_copies(device)
    device.close()
    assert live(device) == 0


def test_full_memory_leaves_a_buffer_that_works() -> None:
    check_full_memory(Device())


def test_recorded_work_runs_when_it_is_launched() -> None:
    check_recording(Device())


def test_work_that_cannot_be_recorded() -> None:
    check_refused_recording(Device())


def test_graphs_are_given_back() -> None:
    device = Device()
    before = live(device)
    graph = device.record(lambda: True)
    with pytest.raises(SessionError, match="could not be put on the stream"):
        device.record(lambda: False)
    assert live(device) == before + 1
    graph.free()
    graph.free()
    assert live(device) == before
    device.close()
    assert live(device) == 0


def test_an_error_says_which_call() -> None:
    device = Device()
    with pytest.raises(SessionError, match=r"CUDA failed in cuInit: invalid argument \(1\)"):
        device._driver.call("cuInit", 5)
    device.close()
