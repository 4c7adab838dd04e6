"""The library in ONNX Runtime itself, on the CPU: registration, shapes, arguments and grid, errors. A stand-in for the driver launches.

The stand-in is found as libcuda.so.1, so each case is a process of its own.
"""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flashrib.export.onnxruntime.compile import arguments_of, compile_launch
from flashrib.export.onnxruntime.launch import Node, Tensor
from flashrib.export.onnxruntime.library import build_library, compiler
from flashrib.export.onnxruntime.passes import PASSES
from flashrib.runtime.errors import SessionError

HERE = Path(__file__).parent
TABLE = """op probe_1
inputs 1
output 1 0.0 0.1 0.2 4
launch
parameters i0 o0 n0 n1
integers 0.0,0.1,*,0.2,* 0.3
image 90 1 0 128 65536 kernel 0.0,0.1,*,0.2,*,4,^ 3 1
image 80 0 64 128 65536 kernel 0.0,0.1,*,0.2,*,4,^ 3 1
op probe_2
inputs 1 6 6
output 1 0.0 0.1 0.2 4
output 1 0.0 0.1 0.2 4
launch
parameters i0 o1 n0 n1
integers 0.0,0.1,*,0.2,* 0.3
image 90 1 0 128 65536 kernel 1 3 1
image 80 0 64 128 65536 kernel 1 3 1
launch
parameters o1 o0 n0 n1
integers 0.0,0.1,*,0.2,* 0.3
image 90 1 0 128 65536 kernel 2 3 1
image 80 0 64 128 65536 kernel 2 3 1
"""
IMAGES = b"image90".ljust(64, b"\0") + b"image80\0"

pytestmark = pytest.mark.skipif(shutil.which("g++") is None or sys.platform != "linux", reason="needs g++ and Linux")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library")
    build_library(TABLE, IMAGES, folder / "probe.so", ('-DFLASHRIB_PROVIDER="CPUExecutionProvider"',))
    build_library(TABLE, IMAGES, folder / "gpu.so")
    command = ["g++", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(HERE / "fake_driver.cpp")]
    subprocess.run(command, check=True)
    return folder


def probe(library: Path, capability: int | None, *arguments: str) -> str:
    environment = {**os.environ, "FAKE_CAPABILITY": str(capability)}
    if capability is not None:
        environment["LD_LIBRARY_PATH"] = str(library.parent)
    command = [sys.executable, str(HERE / "probe.py"), str(library), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(("capability", "body"), [(90, ()), (90, ("with_body",)), (100, ()), (89, ())])
def test_kernels_run(built: Path, capability: int, body: tuple[str, ...]) -> None:
    """On the target itself, with a body that must give way, and through PTX on GPUs that the machine code does not run on: an operator of
    one launch, and one whose second launch reads what the first has left in memory.
    """
    assert probe(built / "probe.so", capability, *body) == "right"


def test_another_gpu_is_refused(built: Path) -> None:
    said = probe(built / "probe.so", 75)
    assert "this library is for GPUs of sm90, but GPU 0, Fake GPU, is sm75: build it with --target sm75" in said


def test_an_older_onnx_runtime_is_refused(built: Path) -> None:
    """One that has API 16 and no later one: its table of functions begins with the one that makes an error."""
    said: list[bytes] = []
    make = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)(lambda code, text: said.append(text) or 1)
    table = (ctypes.c_void_p * 1)(ctypes.cast(make, ctypes.c_void_p))
    get = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)(
        lambda version: ctypes.addressof(table) if version <= 16 else None
    )
    version = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: ctypes.addressof(name))
    name = ctypes.create_string_buffer(b"1.16.3")
    base = (ctypes.c_void_p * 2)(ctypes.cast(get, ctypes.c_void_p), ctypes.cast(version, ctypes.c_void_p))
    register = ctypes.CDLL(str(built / "gpu.so")).RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, base)
    assert said == [b"flashrib: this library needs ONNX Runtime 1.17 or later, this is 1.16.3"]


def test_no_gpu(built: Path) -> None:
    assert "the NVIDIA driver finds no GPU on this machine" in probe(built / "probe.so", 0)


def test_no_driver(built: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver")
    assert "there is no NVIDIA driver on this machine (libcuda.so.1)" in probe(built / "probe.so", None)


def test_without_the_cuda_provider_there_is_no_kernel(built: Path) -> None:
    """The body stays unused once the library is registered: the session says so instead of running slowly."""
    assert "Could not find an implementation for probe_1" in probe(built / "gpu.so", 90, "with_body")


def test_a_compiler_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SessionError, match=r"needs a C\+\+ compiler, and there is no no-such-compiler"):
        compiler()


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_the_kernel_takes_what_the_library_passes(dtype: str) -> None:
    """Pointers, integers and Triton's own two, in the order of the table."""
    like = Tensor(dtype, (None, None, None, 16))
    vector = Tensor("fp32", (64,))
    inputs = {"source": like, "residual": like, "bias": vector, "gain": vector, "offset": vector}
    attributes = {"dim": 12, "out_width": 0, "gelu": 0, "keep_x": 1, "keep_n": 1}
    node = Node("gpu_chain", inputs, attributes)
    (launch,) = PASSES["gpu_chain"].launches(node, 80)
    made = compile_launch(node, launch, 80)
    places = arguments_of(node, launch)
    assert list(places.values()) == ["i0", "i1", "i2", "i3", "i4", "o0", "o1", "n0"]
    entry = re.search(r"\.visible \.entry \w+\((.*?)\)", made.ptx.decode(), re.DOTALL)
    assert entry is not None
    kinds = [line.split()[1] for line in entry[1].strip().splitlines()]
    assert kinds == [".u32" if place[0] == "n" else ".u64" for place in places.values()] + [".u64", ".u64"]
    assert made.code.startswith(b"\x7fELF")
