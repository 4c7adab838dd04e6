"""Which session a model file gets."""

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from flashrib.runtime.artifacts.kinds import FILES, FileKind
from flashrib.runtime.errors import ModelError, UsageError
from flashrib.runtime.sessions import table
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.table import OPTIONS, SESSIONS, choose_exact_session, choose_session, open_session
from flashrib.runtime.sessions.torch_plain import TorchSession
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.sessions.engines import write_engine
from tests.runtime.sessions.test_onnxruntime import METADATA


def test_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, name in (("onnxruntime", "m.onnx"), ("torch", "m.safetensors")):
        row = dataclasses.replace(SESSIONS[kind], bundled=lambda model, name=name: tmp_path / model / name)
        monkeypatch.setitem(SESSIONS, kind, row)
    assert choose_session(None) == (tmp_path / "x2" / "m.onnx", "onnxruntime")
    assert choose_session("photo", "onnxruntime") == (tmp_path / "photo" / "m.onnx", "onnxruntime")
    assert choose_session(Path("x4"), "torch") == (tmp_path / "x4" / "m.safetensors", "torch")


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
        (
            {"cuda_graph": True},
            UsageError,
            r"--cuda-graph: .*m\.onnx is an ONNX file, and only engines run as .*: leave it out",
        ),
        (
            {"precision": "fp16"},
            UsageError,
            r"--precision fp16: .*m\.onnx is an ONNX file and has its own: leave it out",
        ),
        ({"kind": "openvino"}, UsageError, "session 'openvino' is not one of auto, onnxruntime, torch, tensorrt, aoti"),
        ({"device": "cuda:0,cuda:1"}, UsageError, "ONNX Runtime runs on one GPU: name one, or use --session torch"),
        ({"provider": "tpu"}, UsageError, "provider 'tpu' is not one of cpu, cuda"),
        ({"provider": "cuda", "device": "cpu"}, UsageError, "--device cpu: the provider cuda runs on GPUs"),
        ({"provider": "openvino", "device": "cuda"}, UsageError, "the provider openvino has no such device"),
        ({"provider": "cuda", "threads": 2}, UsageError, "--threads 2: the provider cuda runs on a GPU"),
        ({"device": "tpu"}, UsageError, "device 'tpu' is not one of"),
        ({"threads": 0}, UsageError, "threads is 0"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_contradictions(options: dict[str, object], error: type[Exception], message: str, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    with pytest.raises(error, match=message):
        open_session(path, **options)


def test_threads_are_refused_where_nothing_takes_them(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--threads 2: .*a\.engine is an engine, which threads on the CPU .*: leave it out"
    ):
        open_session(write_engine(tmp_path / "a.engine"), threads=2)


def test_precisions_are_those_of_the_row(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "m.pth")
    with pytest.raises(UsageError, match="precision 'int8' is not one of fp32, fp16, bf16"):
        open_session(tmp_path / "m.pth", precision="int8")


def test_every_option_of_a_row_exists() -> None:
    fields = {field.name for field in dataclasses.fields(SessionSpec)}
    assert set(OPTIONS) == fields - {"model", "kind", "arch", "scale", "device"}
    assert all(set(row.options) <= set(OPTIONS) for row in SESSIONS.values())
    assert all(name == row.name for name, row in SESSIONS.items())


def test_a_specification_opens_in_another_process(tmp_path: Path) -> None:
    """As a cluster or a pool of processes does: pickled, sent, opened there."""
    path = write_onnx(tmp_path / "m.onnx")
    spec = SessionSpec(path, scale=2, threads=1)
    assert pickle.loads(pickle.dumps(spec)) == spec
    (tmp_path / "spec").write_bytes(pickle.dumps(spec))
    code = (
        "import pathlib, pickle\n"
        f"spec = pickle.loads(pathlib.Path({str(tmp_path / 'spec')!r}).read_bytes())\n"
        "with spec.open() as session: print(session.info.architecture, session.info.scale)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "sst-light 2\n"


def test_bf16_is_emulated_where_nothing_runs_it(tmp_path: Path) -> None:
    assert choose_exact_session(write_onnx(tmp_path / "m.onnx")) == "onnxruntime"
    low = write_onnx(tmp_path / "low.onnx", metadata=dataclasses.replace(METADATA, precision="bf16").to_properties())
    assert (choose_session(low)[1], choose_exact_session(low)) == ("onnxruntime", "emulation")


def test_a_file_that_no_session_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "notes", FileKind("notes", "a page of notes", (".txt",), lambda start, path: False))
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(UsageError, match=r"a\.txt: is a page of notes, and no kind of session runs such files"):
        choose_session(tmp_path / "a.txt")


def test_the_bundled_model_takes_the_fastest_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_torch_has_gpu", lambda: True)
    assert choose_session(None, may_use_gpus=SessionSpec().may_use_gpus)[1] == "torch"
    assert choose_session(None, may_use_gpus=SessionSpec(device="cpu").may_use_gpus)[1] == "onnxruntime"
    assert choose_session(None, may_use_gpus=SessionSpec(threads=2).may_use_gpus)[1] == "onnxruntime"
    monkeypatch.setattr(table, "_torch_has_gpu", lambda: False)
    assert choose_session(None, may_use_gpus=True)[1] == "onnxruntime"
