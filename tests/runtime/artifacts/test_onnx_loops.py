"""Loops that would never end are refused before anything runs; those of operators' bodies are taken."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from flashrib.runtime.artifacts.onnx_loops import check_loops
from flashrib.runtime.errors import ModelError
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.runtime.sessions.test_onnxruntime import nearest

BODY = "body = turn (int64 i, bool more, float v) => (bool still, float w) {{ still = Identity(more) w = Identity(v) }}"


def graph(turns: str, before: str = "") -> onnx.GraphProto:
    text = f"g (float v, int64 n, bool go) => (float y) {{ {before} y = Loop ({turns}, go, v) <{BODY}> }}"
    return onnx.parser.parse_graph(text.replace("{{", "{").replace("}}", "}"))


def saved(path: Path, made: onnx.GraphProto) -> Path:
    path.write_bytes(onnx.helper.make_model(made).SerializeToString())
    return path


def test_a_computed_number_of_turns_is_taken(tmp_path: Path) -> None:
    check_loops(saved(tmp_path / "m.onnx", graph("n")))


@pytest.mark.parametrize(("turns", "taken"), [(1, True), (1000, True), (2**62, False), (-1, False)])
def test_a_number_in_the_file(turns: int, taken: bool, tmp_path: Path) -> None:
    made = graph("m")
    made.initializer.append(numpy_helper.from_array(np.int64(turns), "m"))
    path = saved(tmp_path / "m.onnx", made)
    if taken:
        check_loops(path)
    else:
        with pytest.raises(ModelError, match=r"m\.onnx: has a Loop without an end"):
            check_loops(path)


@pytest.mark.parametrize("where", ["graph", "branch", "function"])
def test_without_a_number_it_is_refused_wherever_it_stands(where: str, tmp_path: Path) -> None:
    endless = graph('""')
    if where == "graph":
        model = onnx.helper.make_model(endless)
    elif where == "branch":
        outer = onnx.parser.parse_graph("g (bool c) => (float y) { y = If(c) }")
        for name in ("then_branch", "else_branch"):
            outer.node[0].attribute.append(onnx.helper.make_attribute(name, endless))
        model = onnx.helper.make_model(outer)
    else:
        model = onnx.helper.make_model(graph("n"))
        opsets = [onnx.helper.make_opsetid("", 18)]
        model.functions.append(onnx.helper.make_function("f", "F", ["v", "go"], ["y"], endless.node, opsets))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="has a Loop without an end that is known before it runs"):
        check_loops(tmp_path / "m.onnx")


@pytest.mark.parametrize("batch", [0, 100_000])
def test_a_batch_that_nobody_meant(batch: int, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(nearest(shape=(batch, 3, "h", "w")).SerializeToString())
    with pytest.raises(ModelError, match=f"takes {batch} pictures at a time, but it must take 1 to 1024"):
        OnnxRuntimeSession(tmp_path / "m.onnx")


def test_a_file_that_onnx_runtime_refuses_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = nearest().SerializeToString().replace(b"nearest", b"nea\xffest")
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="ONNX Runtime cannot load this model"):
        OnnxRuntimeSession(tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")
