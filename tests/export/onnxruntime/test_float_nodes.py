"""Nodes without a kernel for bf16 are computed in float32: what is cast, and that the results stay."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from flashrib.export.onnxruntime.float_nodes import MISSING, with_float_nodes
from flashrib.export.onnxruntime.trace import traced_with_passes
from flashrib.model import build_model

TEXT = """
<ir_version: 10, opset_import: ["" : 22]>
small (float[1, 1, 2, 3] x) => (float[1, 1, 4, 5] y)
<bfloat16[1, 1, 2, 3] low, bfloat16[1, 1, 2, 3] sum, bfloat16[1, 1, 2, 3] bent, bfloat16[1, 1, 4, 5] wide>
{
    low = Cast <to = 16> (x)
    sum = Add (low, low)
    bent = LeakyRelu <alpha = 0.5> (sum)
    wide = Pad (bent, pads, edge)
    y = Cast <to = 1> (wide)
}
"""


def small() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"))
    model.graph.initializer.append(onnx.helper.make_tensor("edge", TensorProto.BFLOAT16, [], [0.25]))
    return model


def test_casts_stand_around_them() -> None:
    model = small()
    with_float_nodes(model)
    onnx.checker.check_model(model, full_check=True)
    assert " ".join(node.op_type for node in model.graph.node) == "Cast Add Cast LeakyRelu Cast Pad Cast Cast"
    assert {t.name: t.data_type for t in model.graph.initializer} == {
        "pads": TensorProto.INT64,
        "edge_as_float": TensorProto.FLOAT,
    }
    x = np.array([[[[-2, -1, 0], [1, 2, 3]]]], np.float32)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_array_equal(y[0, 0, 1:-1, 1:-1], [[-2, -1, 0], [2, 4, 6]])
    assert set(np.concatenate([y[0, 0, 0], y[0, 0, -1], y[0, 0, :, 0], y[0, 0, :, -1]])) == {0.25}


@pytest.mark.slow
def test_a_network() -> None:
    model = traced_with_passes(build_model("sst-light", 2), "bf16", None, "")
    with_float_nodes(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if not node.domain and node.op_type in MISSING]
    assert {node.op_type for node in nodes} == {"Pad"}
    for node in nodes:
        assert not [name for name in (*node.input, *node.output) if kinds.get(name) == TensorProto.BFLOAT16]


def test_other_precisions_stay_as_they_are() -> None:
    model = small()
    for tensor in model.graph.value_info:
        tensor.type.tensor_type.elem_type = TensorProto.FLOAT16
    for node in model.graph.node:
        for attribute in node.attribute:
            attribute.i = TensorProto.FLOAT16 if attribute.i == TensorProto.BFLOAT16 else attribute.i
    model.graph.initializer[1].data_type = TensorProto.FLOAT16
    before = model.SerializeToString(deterministic=True)
    with_float_nodes(model)
    assert model.SerializeToString(deterministic=True) == before
