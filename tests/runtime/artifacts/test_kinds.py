"""Which kind a model file is of."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from flashrib.runtime.artifacts.kinds import FILES, FileKind, recognise_file
from flashrib.runtime.errors import ModelError
from tests.model.networks import small_network
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.sessions.engines import PLAN


@pytest.mark.parametrize("name", ["model.onnx", "model.pth", "model.safetensors", "model.engine", "model", "model.bin"])
def test_the_content_decides(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_onnx(path)
    assert recognise_file(path).name == "onnx"
    write_checkpoint(path)
    assert recognise_file(path).name == "checkpoint"
    for zipped in (True, False):
        torch.save(small_network().state_dict(), path, _use_new_zipfile_serialization=zipped)
        assert recognise_file(path).name == "checkpoint"
    path.write_bytes(PLAN)
    assert recognise_file(path).name == "engine"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("p/data/aotinductor/model/code.so", b"")
    assert recognise_file(path).name == "package"


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.ONNX", b"", "onnx"),
        ("a.onnx", b"text", "onnx"),
        ("a.pth", b"", "checkpoint"),
        ("a.PT", b"text", "checkpoint"),
        ("a.safetensors", b"text", "checkpoint"),
        ("a", pickle.dumps({}, 2), "checkpoint"),
        ("a.pth", b"PK\x03\x04", "checkpoint"),
        ("a.pt2", b"PK\x03\x04", "package"),
        ("a.pt2", b"text", "package"),
        ("a", (40).to_bytes(8, "little") + b"{", "checkpoint"),
        # ir_version 9 and a producer whose name has a brace where .safetensors files have theirs.
        ("a", b"\x08\x09\x12\x09abcd{more", "onnx"),
        ("a", b"ptrt1234", "engine"),
        ("a.engine", b"text", "engine"),
        ("a.PLAN", b"", "engine"),
    ],
)
def test_names_decide_where_the_content_does_not(name: str, content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert recognise_file(tmp_path / name) is FILES[kind]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.bin",
            b"\x89PNG",
            r"a\.bin: neither an engine .* nor an ONNX file \(\.onnx\): it starts with b'\\x89PNG'",
        ),
        ("a.bin", b"", r"a\.bin: the file is empty"),
        ("a.onnx", None, r"a\.onnx: there is no such file"),
        ("a.engine", None, r"a\.engine: there is no such file"),
        (".", None, "cannot be read as a model: Is a directory"),
        ("a\0b", None, "cannot be read as a model: embedded null byte"),
    ],
)
def test_what_is_of_no_kind(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        recognise_file(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="it is no regular file: copy it into one"):
        recognise_file(tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="it is no regular file"):
        recognise_file("/dev/zero")


def test_a_kind_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = FileKind("toy", "a toy", (".toy",), lambda start, path: start.startswith(b"TOY"))
    monkeypatch.setitem(FILES, "toy", toy)
    (tmp_path / "a").write_bytes(b"TOY 1")
    assert recognise_file(tmp_path / "a") is toy
