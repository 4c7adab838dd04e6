"""Which session a model file gets."""

import pickle
from pathlib import Path

import pytest
import torch

from flashrib.runtime.errors import ModelError, UsageError
from flashrib.runtime.sessions import table as module
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.sessions.table import choose_session, is_checkpoint, open_session
from flashrib.runtime.sessions.torch_plain import TorchSession
from tests.model.networks import small_network
from tests.runtime.models import write_checkpoint, write_onnx


@pytest.mark.parametrize("name", ["model.onnx", "model.pth", "model.safetensors", "model", "model.bin"])
def test_the_content_decides(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_onnx(path)
    assert not is_checkpoint(path)
    write_checkpoint(path)
    assert is_checkpoint(path)
    for zipped in (True, False):
        torch.save(small_network().state_dict(), path, _use_new_zipfile_serialization=zipped)
        assert is_checkpoint(path)


@pytest.mark.parametrize(
    ("name", "content", "checkpoint"),
    [
        ("a.ONNX", b"", False),
        ("a.onnx", b"text", False),
        ("a.pth", b"", True),
        ("a.PT", b"text", True),
        ("a.safetensors", b"text", True),
        ("a", pickle.dumps({}, 2), True),
        ("a", (40).to_bytes(8, "little") + b"{", True),
        # ir_version 9 and a producer whose name has a brace where .safetensors files have theirs.
        ("a", b"\x08\x09\x12\x09abcd{more", False),
    ],
)
def test_names_decide_where_the_content_does_not(name: str, content: bytes, checkpoint: bool, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert is_checkpoint(tmp_path / name) is checkpoint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.bin",
            b"\x89PNG",
            r"a\.bin: neither an ONNX file nor a checkpoint .* nor an engine: it starts with b'\\x89PNG'",
        ),
        ("a.bin", b"", r"a\.bin: the file is empty"),
        ("a.onnx", None, r"a\.onnx: there is no such file"),
        (".", None, "cannot be read as a model: Is a directory"),
        ("a\0b", None, "cannot be read as a model: embedded null byte"),
    ],
)
def test_what_is_neither(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        is_checkpoint(tmp_path / name)


def test_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "default_model", lambda: tmp_path / "m.onnx")
    monkeypatch.setattr(module, "default_weights", lambda: tmp_path / "m.safetensors")
    assert choose_session(None) == (tmp_path / "m.onnx", "onnxruntime")
    assert choose_session(None, "onnxruntime") == (tmp_path / "m.onnx", "onnxruntime")
    assert choose_session(None, "torch") == (tmp_path / "m.safetensors", "torch")


@pytest.mark.parametrize("kind", ["auto", "onnxruntime"])
def test_onnx_files(kind: str, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    assert isinstance(open_session(path, kind, arch="sst-light", scale=2, device="cpu", threads=1), OnnxRuntimeSession)


@pytest.mark.parametrize("kind", ["auto", "torch"])
def test_checkpoints(kind: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m.pth")
    assert isinstance(open_session(tmp_path / "m.pth", kind, scale=2, device="cpu"), TorchSession)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"arch": "sst"}, ModelError, r"m\.onnx: its arch is sst-light, not sst: leave --arch out"),
        ({"scale": 3}, ModelError, r"m\.onnx: its scale is 2, not 3: leave --scale out"),
        ({"kind": "torch"}, UsageError, "is an ONNX file, which a session of the kind 'torch' cannot run"),
        ({"kind": "tensorrt"}, UsageError, "is an ONNX file, which a session of the kind 'tensorrt' cannot run"),
        ({"kind": "openvino"}, UsageError, "session 'openvino' is not one of auto, onnxruntime, torch, tensorrt, aoti"),
        ({"device": "cuda"}, UsageError, "ONNX Runtime runs on the CPU here; use --session torch"),
        ({"device": "tpu"}, UsageError, "device 'tpu' is not one of"),
        ({"threads": 0}, UsageError, "threads is 0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_contradictions(options: dict[str, object], error: type[Exception], message: str, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    with pytest.raises(error, match=message):
        open_session(path, **options)  # type: ignore[arg-type]
