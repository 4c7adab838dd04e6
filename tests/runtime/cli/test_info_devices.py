"""`flashrib info --devices`."""

import json

import pytest

from flashrib.runtime.cli import main
from flashrib.runtime.errors import SessionError
from flashrib.runtime.nvidia.cuda import Gpu
from flashrib.runtime.sessions import report


def test_every_provider_and_session_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--devices", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["providers"]["cpu"] is True
    assert found["sessions"].keys() == {"onnxruntime", "torch", "tensorrt", "aoti"}
    assert any(name.startswith("onnxruntime") for name in found["packages"])


def test_a_gpu_without_the_package_for_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "find_gpu", lambda: Gpu("NVIDIA L4", (8, 9)))
    monkeypatch.setattr(report, "has_provider", lambda row: row.name == "cpu")
    assert main(["info", "--devices"]) == 0
    out = capsys.readouterr().out
    assert "NVIDIA L4, sm89" in out
    assert "pip install onnxruntime-gpu in place of onnxruntime for the GPU" in out


def test_no_gpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Gpu:
        raise SessionError("there is no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded), and more")

    monkeypatch.setattr(report, "find_gpu", none)
    assert main(["info", "--devices"]) == 0
    out = capsys.readouterr().out
    assert "there is no NVIDIA driver on this machine" in out
    assert "session tensorrt" in out
    assert "needs a GPU" in out


def test_a_model_is_no_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "m.onnx", "--devices"]) == 2
    assert "--devices: is about this machine and takes no model" in capsys.readouterr().err
