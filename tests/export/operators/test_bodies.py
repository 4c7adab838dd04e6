"""Bodies are exchanged through the table alone, for an operator that nothing in `export` has heard of."""

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from flashrib.export.emulate import emulated
from flashrib.export.operators.bodies import default_bodies, operator_nodes, operators_of, with_body
from flashrib.export.operators.table import OPERATORS, body_names, opset_of_body
from flashrib.export.options import ExportOptions
from flashrib.export.precision import with_precision
from flashrib.runtime.errors import UsageError
from tests.export.operators.toy import NEIGHBOURS

TEXT = """
<ir_version: 10, opset_import: ["": 20, "flashrib": 1]>
g (float[2, 16] x, int64[2] index) => (float[2, 16] output, float total) {
  half = flashrib.Halves (x)
  near, first = flashrib.Neighbours <reach: int = 1> (half, w)
  far, total = flashrib.Neighbours <reach: int = 3> (near, w)
  output = MatMul (far, square)
}"""


@pytest.fixture(autouse=True)
def row() -> Iterator[None]:
    OPERATORS["Neighbours"] = NEIGHBOURS
    yield
    del OPERATORS["Neighbours"]


def model() -> ModelProto:
    parsed = onnx.parser.parse_model(TEXT)
    constants = {"w": np.linspace(0.5, 1, 16, dtype=np.float32), "square": np.eye(16, dtype=np.float32)}
    parsed.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in constants.items())
    return parsed


def expected(x: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    def neighbours(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
        padded = np.pad(values, ((0, 0), (reach, reach)))
        return np.linspace(0.5, 1, 16) * sum(padded[:, i : i + 16] for i in range(2 * reach + 1))

    near = neighbours(x.astype(np.float64) / 2, 1)
    return neighbours(near, 3), float(np.abs(near).sum())


def run(found: ModelProto, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(found.SerializeToString(), providers=["CPUExecutionProvider"])
    result: list[NDArray[np.float32]] = session.run(None, {"x": x, "index": np.zeros(2, np.int64)})
    return result


def test_bodies_per_node_and_auxiliary_functions() -> None:
    found = with_body(model(), "standard")
    onnx.checker.check_model(found, full_check=True)
    assert [(f.name, f.overload) for f in found.functions] == [
        ("Halves", ""),
        ("Neighbours", "reach1"),
        ("Neighbours", "reach3"),
    ]
    assert [node.overload for node in operator_nodes(found)] == ["reach1", "reach3"]
    x = np.random.default_rng(0).random((2, 16), np.float32)
    y, total = run(found, x)
    wanted, wanted_total = expected(x)
    assert np.abs(y - wanted).max() < 1e-5
    assert total == pytest.approx(wanted_total, rel=1e-6)


def test_no_body() -> None:
    bare = with_body(with_body(model(), "standard"), "none")
    assert [function.name for function in bare.functions] == ["Halves"]
    assert [node.overload for node in operator_nodes(bare)] == ["", ""]


def test_bodies_that_the_operator_has_not() -> None:
    with pytest.raises(
        UsageError, match="flashrib::Neighbours has no body 'padded': choose one of standard, dense, none"
    ):
        with_body(model(), "padded")


def test_only_what_the_model_has() -> None:
    assert operators_of(model()) == [NEIGHBOURS]
    assert default_bodies(model(), "fp16") == {"Neighbours": "standard"}
    assert default_bodies(model(), "bf16") == {"Neighbours": "dense"}


def test_options_ask_the_table() -> None:
    assert {"onnxruntime", "standard", "attention", "padded", "dense"} <= set(body_names())
    assert ExportOptions(attention="dense").chosen_opset == 20
    assert (opset_of_body("attention"), opset_of_body("standard"), opset_of_body(None)) == (23, 1, 1)
    with pytest.raises(UsageError, match=r"attention 'sdpa' is not one of onnxruntime, standard, .*dense.*none"):
        ExportOptions(attention="sdpa")


@pytest.mark.parametrize(("precision", "low"), [("fp16", TensorProto.FLOAT16), ("bf16", TensorProto.BFLOAT16)])
def test_precision(precision: str, low: int) -> None:
    """The operator computes in the low precision, its auxiliary function and one output in float32; integers stay integers."""
    source = model()
    source.opset_import[0].version = 23
    narrow = with_body(with_precision(source, precision, "fp32"), "standard")
    onnx.checker.check_model(narrow, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(narrow, strict_mode=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    assert (kinds["half"], kinds["near"], kinds["far"], kinds["first"]) == (
        TensorProto.FLOAT,
        low,
        low,
        TensorProto.FLOAT,
    )
    assert (kinds["x"], kinds["index"], kinds["output"]) == (TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT)
    x = np.random.default_rng(0).random((2, 16), np.float32)
    y, total = run(emulated(narrow), x)
    wanted, wanted_total = expected(x)
    assert 0 < np.abs(y - wanted).max() < 0.2
    assert total == pytest.approx(wanted_total, rel=1e-2)


def test_half_ends() -> None:
    narrow = with_body(with_precision(model(), "fp16", "fp16"), "standard")
    onnx.checker.check_model(narrow, full_check=True)
    kinds = [v.type.tensor_type.elem_type for v in (*narrow.graph.input, *narrow.graph.output)]
    assert kinds == [TensorProto.FLOAT16, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.FLOAT16]


def test_rows_are_complete() -> None:
    for row in OPERATORS.values():
        assert "standard" in row.bodies
        assert {row.engine_body, row.older_engine_body, *row.default.values()} <= set(row.bodies)
