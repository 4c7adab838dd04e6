"""The C++ example, built and run against the ONNX Runtime that is installed: on the CPU, and on a GPU where there is one.

    pytest -s tests/examples/test_onnxruntime_cpp.py

prints how far the example's picture is from PyTorch's.
"""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from flashrib.export.onnxruntime.library import compiler
from flashrib.model import load_model
from flashrib.runtime.artifacts.bundled import bundled_model, bundled_weights
from flashrib.runtime.artifacts.library import read_library_manifest
from flashrib.runtime.cli import main
from flashrib.runtime.errors import SessionError
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.places import ROOT
from tests.runtime.models import write_onnx
from tests.runtime.sessions.test_onnxruntime_cuda import needs_cuda

SOURCE = ROOT / "examples" / "onnxruntime_cpp" / "upscale.cpp"
PICTURE = ROOT / "docs" / "pictures" / "demo_lr.png"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, beside the libraries of ONNX Runtime, which looks for its providers where it lies itself."""
    folder = tmp_path_factory.mktemp("example")
    for library in (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime*.so*"):
        (folder / library.name).symlink_to(library)
    if not (libraries := sorted(folder.glob("libonnxruntime.so.*"))):
        pytest.skip("this onnxruntime has no shared library")
    if not (folder / "libonnxruntime.so").exists():
        (folder / "libonnxruntime.so").symlink_to(libraries[0])
    try:
        compile_with = compiler()
    except SessionError as error:
        pytest.skip(str(error))
    arguments = ["-std=c++17", "-O2", "-Wall", "-Werror", "-o", str(folder / "upscale"), str(SOURCE), "-ldl"]
    subprocess.run([compile_with, *arguments], check=True)
    return folder / "upscale"


def run(program: Path, *arguments: str | Path, folders: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the example; `folders` are searched for libraries too."""
    path = ":".join([str(program.parent), *folders, os.environ.get("LD_LIBRARY_PATH", "")])
    environment = os.environ | {"LD_LIBRARY_PATH": path.rstrip(":")}
    command = [program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_example(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(SOURCE.read_text().splitlines()) < 100
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    Image.fromarray(picture).save("in.ppm")
    model = write_onnx(tmp_path / "m.onnx", shape=(1, 3, "h", "w"))
    done = run(program, "m.onnx", "in.ppm", "out.ppm")
    assert (done.returncode, done.stderr) == (0, "")
    batch = (picture.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)
    with OnnxRuntimeSession(model) as session:
        wanted = np.rint(session.run(batch)[0].clip(0, 1) * 255).transpose(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(Image.open("out.ppm")), wanted)
    for arguments, said in (
        (("none.onnx", "in.ppm", "out.ppm"), "none.onnx"),
        (("m.onnx", "m.onnx", "out.ppm"), "m.onnx: not a PPM file"),
        (("m.onnx",), "usage"),
    ):
        done = run(program, *arguments)
        assert done.returncode == 1
        assert said in done.stderr


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled picture in the example's format."""
    path = tmp_path_factory.mktemp("picture") / "in.ppm"
    Image.open(PICTURE).convert("RGB").save(path)
    return path


@pytest.fixture(scope="module")
def exact() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """PyTorch's result in float32, (H, W, 3), in steps of 8 bits."""
    picture = np.asarray(Image.open(PICTURE).convert("RGB"))
    batch = torch.from_numpy(picture.transpose(2, 0, 1)[None] / np.float32(255))
    with torch.inference_mode():
        result: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = load_model(bundled_weights()).upscale(batch).numpy()
    return result[0].clip(0, 1).transpose(1, 2, 0) * np.float32(255)


@pytest.mark.slow
def test_the_bundled_model(program: Path, low: Path, tmp_path: Path, exact: np.ndarray) -> None:
    done = run(program, bundled_model(), low, tmp_path / "out.ppm")
    assert (done.returncode, done.stderr) == (0, "")
    compare(tmp_path / "out.ppm", exact, "the bundled file in fp32, on the CPU")


@pytest.mark.gpu
@needs_cuda
def test_a_library_on_the_gpu(program: Path, low: Path, tmp_path: Path, exact: np.ndarray) -> None:
    """What `flashrib build` makes of the bundled weights, with its library and without, in fp16."""
    model = tmp_path / "m.onnx"
    command = ["build", str(bundled_weights()), "-o", str(model), "--flavour", "onnxruntime", "--target", "current"]
    assert main(command) == 0
    manifest = read_library_manifest(model)
    for library, where in ((model.with_name(manifest.library), manifest.checked_on), (None, "CPU")):
        result = tmp_path / f"{where}.ppm"
        given = [] if library is None else [library]
        done = run(program, model, low, result, *given, folders=cuda_folders())
        assert (done.returncode, done.stderr) == (0, "")
        compare(result, exact, f"{'without' if library is None else 'with'} the library, on {where}")


def compare(path: Path, exact: np.ndarray, what: str) -> None:
    """A picture with PyTorch's: fp16 may move a value over the middle between two steps."""
    found = np.asarray(Image.open(path)).astype(np.float32)
    difference = np.abs(found - np.rint(exact))
    share, rms = (difference > 0).mean(), np.sqrt(np.mean((found - exact) ** 2))
    print(
        f"\n{what}: {100 * share:.2f} % of the values differ, by at most {difference.max():.0f} of 255; RMS error with rounding"
        f" {rms:.3f} of 255, rounding alone {np.sqrt(np.mean((np.rint(exact) - exact) ** 2)):.3f}"
    )
    assert difference.max() <= 2
    assert share < 0.1


def cuda_folders() -> tuple[str, ...]:
    """Folders with the libraries of CUDA and cuDNN that Python's onnxruntime loads, and with pip's packages beside them."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    mapped = re.findall(r"(/\S+)/lib(?:cu|nv)[A-Za-z_]+[^/\n]*\.so", Path("/proc/self/maps").read_text())
    folders = {Path(folder) for folder in mapped}
    for folder in list(folders):
        if folder.name == "lib" and folder.parent.parent.name == "nvidia":
            folders.update(folder.parent.parent.glob("*/lib"))
    return tuple(sorted(map(str, folders)))
