"""The C++ example, built and run on the CPU against the ONNX Runtime that is installed."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.runtime.models import write_onnx

SOURCE = Path(__file__).parents[2] / "examples" / "onnxruntime_cpp" / "upscale.cpp"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_example(tmp_path: Path) -> None:
    assert len(SOURCE.read_text().splitlines()) < 100
    folder = Path(onnxruntime.__file__).parent / "capi"
    libraries = sorted(folder.glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this onnxruntime has no shared library")
    (tmp_path / "libonnxruntime.so").symlink_to(libraries[0])
    program = tmp_path / "upscale"
    subprocess.run(["g++", "-std=c++17", "-Wall", "-Werror", "-o", program, SOURCE, "-ldl"], check=True)
    picture = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "in.ppm")
    model = write_onnx(tmp_path / "m.onnx", shape=(1, 3, "h", "w"))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
        command = [str(program), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = run("m.onnx", "in.ppm", "out.ppm")
    assert (done.returncode, done.stderr) == (0, "")
    batch = (picture.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)
    with OnnxRuntimeSession(model) as session:
        wanted = np.rint(session.run(batch)[0].clip(0, 1) * 255).transpose(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.ppm")), wanted)
    for arguments, said in (
        (("none.onnx", "in.ppm", "out.ppm"), "none.onnx"),
        (("m.onnx", "m.onnx", "out.ppm"), "m.onnx: not a PPM file"),
        (("m.onnx",), "usage"),
    ):
        done = run(*arguments)
        assert done.returncode == 1
        assert said in done.stderr
