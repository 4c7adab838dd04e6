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
small (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y)
<bfloat16[1, 1, 4, 4] low, bfloat16[1, 1, 4, 4] sum, bfloat16[1, 1, 4, 4] found, bfloat16[1, 1, 4, 4] bent>
{
    low = Cast <to = 16> (x)
    found = Conv <pads = [1, 1, 1, 1]> (low, weight)
    bent = LeakyRelu <alpha = 0.5> (found)
    sum = Add (bent, low)
    y = Cast <to = 1> (sum)
}
"""


def small() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    weight = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3) / 8
    tensor = numpy_helper.from_array(weight, "weight")
    model.graph.initializer.append(onnx.helper.make_tensor("weight", TensorProto.BFLOAT16, tensor.dims, weight.ravel()))
    return model


def test_casts_stand_around_them() -> None:
    model = small()
    with_float_nodes(model)
    onnx.checker.check_model(model, full_check=True)
    assert " ".join(node.op_type for node in model.graph.node) == "Cast Cast Conv Cast LeakyRelu Cast Add Cast"
    (weight,) = model.graph.initializer
    assert (weight.name, weight.data_type) == ("weight_as_float", TensorProto.FLOAT)
    x = (np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) - 8) / 4  # all numbers of it are bf16 numbers
    padded = np.pad(x[0, 0], 1)
    kernel = np.arange(9, dtype=np.float32).reshape(3, 3) / 8
    found = np.array([[(padded[i : i + 3, j : j + 3] * kernel).sum() for j in range(4)] for i in range(4)])
    wanted = np.where(found < 0, found / 2, found) + x[0, 0]
    (y,) = ReferenceEvaluator(model).run(None, {"x": x})
    np.testing.assert_allclose(y[0, 0], wanted, rtol=2**-7)


@pytest.mark.slow
def test_a_network() -> None:
    model = traced_with_passes(build_model("sst-light", 2), "bf16", None, "")
    with_float_nodes(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if not node.domain and node.op_type in MISSING]
    assert {"Conv", "Pad"} <= {node.op_type for node in nodes}
    for node in nodes:
        assert not [name for name in (*node.input, *node.output) if kinds.get(name) == TensorProto.BFLOAT16]


def test_other_precisions_stay_as_they_are() -> None:
    model = small()
    for tensor in model.graph.value_info:
        tensor.type.tensor_type.elem_type = TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        tensor.data_type = TensorProto.FLOAT16
    before = model.SerializeToString(deterministic=True)
    with_float_nodes(model)
    assert model.SerializeToString(deterministic=True) == before
