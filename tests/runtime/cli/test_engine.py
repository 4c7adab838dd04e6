"""Commands that run an engine, on a TensorRT made of numpy."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashrib.runtime.cli import main
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise
from tests.runtime.sessions.engines import write_engine
from tests.runtime.sessions.fake_tensorrt import TENSORRT, FakeDevice, install, tensorrt


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def test_upscale(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture of three tiles through an engine of one size, two of them as a graph."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt("11.4.0"))
    path = write_engine(tmp_path / "a.engine", shapes=((64, 64),) * 3, **TENSORRT)
    pixels = noise(64, 192, 3)
    write_picture(tmp_path / "in.png", Picture(pixels))
    command = [
        "upscale",
        str(tmp_path / "in.png"),
        "-o",
        str(tmp_path / "out.png"),
        "--model",
        str(path),
        "--halo",
        "0",
    ]
    assert main([*command, "--cuda-graph", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["session"], about["pictures"][0]["tiles"]) == ("tensorrt", 3)
    np.testing.assert_array_equal(read_picture(tmp_path / "out.png").pixels, pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert FakeDevice.made[0].log == ["run", "record", "launch", "launch"]
    assert FakeDevice.made[0].closed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"version": "1.6.0"},
            "was built by TensorRT-RTX 1.6.0, but 1.7.1.116 is installed: build it again, or install 1.6.0",
        ),
        ({"targets": ("sm120",)}, "was built for GPUs of compute capability 12.0, but this one, NVIDIA Test, has 8.6"),
        ({"flavour": "tensorrt", "version": "11.4"}, "needs the package 'tensorrt', which is not installed"),
    ],
    ids=["version", "GPU", "package"],
)
def test_upscale_refuses(
    changes: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    path = write_engine(tmp_path / "a.engine", **changes)
    write_picture(tmp_path / "in.png", Picture(noise(64, 64, 3)))
    assert main(["upscale", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "--model", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
    assert FakeDevice.made == []
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("right", [True, False])
def test_verify(
    right: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numeric check before the first use: the reference and the engine repeat pixels, or the engine mirrors them as well."""
    reference = write_onnx(tmp_path / "reference.onnx")
    engine = write_engine(tmp_path / "a.engine", shapes=((64, 64),) * 3)
    if not right:
        download = FakeDevice.download
        monkeypatch.setattr(FakeDevice, "download", lambda *a: download(*a)[..., ::-1])
    assert main(["verify", str(reference), str(engine), "--json"]) == (0 if right else 1)
    (artifact,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert (artifact["session"], artifact["precision"], artifact["passed"]) == ("tensorrt", "fp16", right)
    assert {(entry["height"], entry["width"]) for entry in artifact["inputs"]} == {(64, 64)}
