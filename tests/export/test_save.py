"""A file appears complete, checked, or not at all."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from flashrib.export.save import save_onnx
from flashrib.runtime.errors import FlashribError, ModelError
from tests.export.graphs import graph


def model() -> ModelProto:
    text = "g (float[32, 32] x) => (float[32, 32] y) { a = MatMul(x, w) b = MatMul(a, v) y = Add(b, c) }"
    w = np.random.default_rng(0).random((32, 32), dtype=np.float32)
    return graph(text, w=w, v=w + 1, c=np.ones(1, np.float32))


def test_large_weights_lie_beside(tmp_path: Path) -> None:
    original = model()
    save_onnx(original, tmp_path / "m.onnx", external_above=5000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]
    assert (tmp_path / "m.onnx").stat().st_size < 2000
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    loaded = onnx.load(tmp_path / "m.onnx")
    for ours, theirs in zip(original.graph.initializer, loaded.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(ours), numpy_helper.to_array(theirs))


def test_small_weights_stay_inside(tmp_path: Path) -> None:
    save_onnx(model(), tmp_path / "m.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("error", [ModelError("wrong"), KeyboardInterrupt()], ids=["failed", "interrupted"])
@pytest.mark.parametrize("limit", [0, 10**9], ids=["external", "inside"])
def test_a_failed_check_leaves_the_old_file(error: BaseException, limit: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")

    def check(staged: Path) -> None:
        assert staged.name == "m.onnx"
        onnx.checker.check_model(str(staged), full_check=True)
        raise error

    with pytest.raises(type(error)):
        save_onnx(model(), path, check=check, external_above=limit)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("m.onnx", b"old")]


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    path.chmod(0o640)
    (tmp_path / "link.onnx").symlink_to(path)
    save_onnx(model(), tmp_path / "link.onnx")
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "link.onnx").is_symlink()
    assert onnx.load(path).graph.name == "g"


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FlashribError, match=r"cannot be written: No such file"):
        save_onnx(model(), tmp_path / "missing" / "m.onnx")
