"""What is read of ONNX files without onnx: opset and external data; metadata and damage are in the tests of the session."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flashrib.export.options import OPSETS as EXPORTED
from flashrib.runtime.artifacts.onnx_file import OPSETS, describe_onnx, external_files
from flashrib.runtime.errors import ModelError
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.runtime.sessions.test_onnxruntime import METADATA, nearest


def saved(path: Path, change: Callable[[onnx.ModelProto], object] = lambda model: None) -> Path:
    model = nearest()
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def outside(model: onnx.ModelProto, *parts: dict[str, str]) -> None:
    """Add constants that lie elsewhere."""
    for index, entries in enumerate(parts):
        tensor = TensorProto(name=f"far{index}", data_type=TensorProto.FLOAT, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        model.graph.initializer.append(tensor)


def test_what_is_exported_is_taken() -> None:
    assert (OPSETS[0], OPSETS[-1]) == (min(EXPORTED), max(EXPORTED))


@pytest.mark.parametrize(
    ("imports", "opset"),
    [([("", 17)], 17), ([("", 24)], 24), ([("com.microsoft", 18)], 0), ([("flashrib", 18), ("ai.onnx", 99)], 99)],
)
def test_other_opsets_are_refused(imports: list[tuple[str, int]], opset: int, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend(itertools.starmap(helper.make_opsetid, imports))

    with pytest.raises(ModelError, match=rf"m\.onnx: is of ONNX opset {opset}, but .* 18 to 23: export it again"):
        describe_onnx(saved(tmp_path / "m.onnx", change))


def test_opsets_of_other_domains_do_not_matter(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", lambda m: m.opset_import.extend([helper.make_opsetid("com.microsoft", 1)]))
    assert describe_onnx(path) == METADATA


def test_external_files(tmp_path: Path) -> None:
    """Two constants in one file, one in another; of the first file the last byte counts."""
    (tmp_path / "b.bin").write_bytes(bytes(48))
    (tmp_path / "a.bin").write_bytes(bytes(16))
    parts = ({"location": "b.bin", "offset": "32", "length": "16"}, {"location": "b.bin"}, {"location": "a.bin"})
    path = saved(tmp_path / "m.onnx", lambda model: outside(model, *parts))
    assert external_files(path) == [tmp_path / "a.bin", tmp_path / "b.bin"]
    (tmp_path / "b.bin").write_bytes(bytes(47))
    with pytest.raises(ModelError, match=r"m\.onnx: its external data 'b\.bin' is truncated \(47 bytes of 48\)"):
        external_files(path)


def test_no_external_files(tmp_path: Path) -> None:
    assert external_files(saved(tmp_path / "m.onnx")) == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": ""}, "'' lies outside"),
        ({"length": "4"}, "'' lies outside"),
        ({"location": "x", "length": "many"}, "its weights are damaged"),
    ],
)
def test_malformed_external_data(entries: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        external_files(saved(tmp_path / "m.onnx", lambda model: outside(model, entries)))


def test_external_data_runs(tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        outside(model, {"location": "factor.bin", "offset": "12", "length": "4"})
        model.graph.initializer[-1].dims[0] = 1
        model.graph.node[-1].output[0] = "inner"
        model.graph.node.append(helper.make_node("Mul", ["inner", "far0"], ["output"]))

    (tmp_path / "factor.bin").write_bytes(np.float32([0, 0, 0, 3]).tobytes())
    session = OnnxRuntimeSession(saved(tmp_path / "m.onnx", change))
    np.testing.assert_array_equal(session.run(np.ones((1, 3, 2, 2), np.float32)), np.full((1, 3, 4, 4), 3, np.float32))


def test_metadata_comes_first(tmp_path: Path) -> None:
    """A file of another tool is called so, whatever its opset."""

    def change(model: onnx.ModelProto) -> None:
        del model.metadata_props[:]
        helper.set_model_props(model, {"opset": "99"})
        model.opset_import[0].version = 99

    with pytest.raises(ModelError, match="was not made by flashrib"):
        describe_onnx(saved(tmp_path / "m.onnx", change))
    assert (
        dataclasses.asdict(METADATA)["opset"] == 0
    )  # of an older file, which does not say it: the import is what counts


@pytest.mark.parametrize(
    ("dtype", "stated", "precision"),
    [
        (np.float32, "fp32", "fp32"),
        (np.float16, "fp32", "fp16"),
        (np.int8, "fp32", "int8"),
        (np.int8, "fp16", "int8"),
        (np.float32, "bf16", "bf16"),
        (np.int64, "fp32", "fp32"),
    ],
)
def test_a_file_that_another_program_converted(dtype: Any, stated: str, precision: str, tmp_path: Path) -> None:
    """Its metadata say what it was; its weights say what it is."""

    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.zeros((30, 40), dtype), "weight"))
        helper.set_model_props(model, dataclasses.replace(METADATA, precision=stated).to_properties())

    assert describe_onnx(saved(tmp_path / "m.onnx", change)).precision == precision
