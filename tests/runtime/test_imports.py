"""An embedded device has neither torch nor onnx: nothing in `runtime` may want them before it is asked to."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import flashrib.runtime
from flashrib.runtime.pictures.files import read_picture
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise

MODULES = sorted(
    {
        "flashrib.runtime",
        *(module.name for module in pkgutil.walk_packages(flashrib.runtime.__path__, "flashrib.runtime.")),
    }
    - {"flashrib.runtime.cli.__main__"}
)

# A module that is None in sys.modules cannot be imported.
BLOCK = "import sys\nfor package in ('torch', 'onnx', 'safetensors'): sys.modules[package] = None\n"
CHECK = "import sys\nassert not {'torch', 'onnx', 'safetensors'} & set(sys.modules)\n"
WAYS = pytest.mark.parametrize(("before", "after"), [(BLOCK, ""), ("", CHECK)], ids=["blocked", "unused"])


def run(code: str, folder: Path) -> None:
    result = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_list_is_complete() -> None:
    assert {
        "flashrib.runtime.tiling.upscale",
        "flashrib.runtime.sessions.torch_plain",
        "flashrib.runtime.cli.train",
    } <= set(MODULES)


@WAYS
def test_every_module(before: str, after: str, tmp_path: Path) -> None:
    run(before + "".join(f"import {module}\n" for module in MODULES) + after, tmp_path)


@WAYS
def test_a_whole_upscale(before: str, after: str, tmp_path: Path) -> None:
    write_onnx(tmp_path / "model.onnx")
    Image.fromarray(noise(30, 40, 4)).save(tmp_path / "in.png")
    upscale = (
        "from flashrib.runtime.cli import main\n"
        "assert main(['upscale', 'in.png', '-o', 'out.png', '--model', 'model.onnx']) == 0\n"
        "assert main(['info', 'model.onnx']) == 0\n"
    )
    run(before + upscale + after, tmp_path)
    assert read_picture(tmp_path / "out.png").pixels.shape == (60, 80, 3)
