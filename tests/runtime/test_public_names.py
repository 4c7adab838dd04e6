"""What a newcomer imports."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import flashrib.runtime as runtime
from tests.runtime.picture_files import noise


def test_every_name_is_there_and_is_documented() -> None:
    for name in runtime.__all__:
        assert getattr(runtime, name).__doc__, name
    assert set(runtime.__all__) <= set(dir(runtime))
    assert set(runtime._HOMES) == set(runtime.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'open_sesame'"):
        _ = runtime.open_sesame


def test_importing_loads_nothing_and_the_example_runs(tmp_path: Path) -> None:
    Image.fromarray(noise(12, 10, 3)).save(tmp_path / "small.png")
    example = "\n".join(
        line.removeprefix("    ") for line in str(runtime.__doc__).splitlines() if line.startswith("    ")
    )
    code = (
        "import sys, flashrib.runtime\n"
        "assert not {'numpy', 'PIL', 'onnxruntime'} & set(sys.modules)\n"
        f"{example}\n"
        "assert not {'torch', 'onnx', 'tensorrt', 'safetensors'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    with Image.open(tmp_path / "large.png") as picture:
        assert picture.size == (20, 24)
