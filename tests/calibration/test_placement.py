"""Every rule can be broken, and is found."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from flashrib.calibration.apply import with_layers
from flashrib.calibration.formats import FORMATS
from flashrib.calibration.placement import placement_faults
from tests.calibration.cases import plans, small_model, tiles


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> ModelProto:
    drawn = tiles(tmp_path_factory.mktemp("tiles"))
    return with_layers(small_model(), list(plans(small_model(), drawn, "int8").values()), FORMATS["int8"])


def first(model: ModelProto, op: str) -> NodeProto:
    node: NodeProto = next(node for node in model.graph.node if node.op_type == op)
    return node


def eight_bit_product(model: ModelProto) -> NodeProto:
    node: NodeProto = next(n for n in model.graph.node if n.op_type == "MatMul" and "Dequantize" in n.input[0])
    return node


def change(model: ModelProto, name: str, values: object, dtype: type = np.float32) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, dtype), name))


def zero_point(model: ModelProto) -> None:
    change(model, first(model, "QuantizeLinear").input[2], 3, np.int8)


def unsigned(model: ModelProto) -> None:
    change(model, first(model, "QuantizeLinear").input[2], 0, np.uint8)


def no_zero_point(model: ModelProto) -> None:
    del first(model, "QuantizeLinear").input[2:]


def negative_scale(model: ModelProto) -> None:
    change(model, first(model, "QuantizeLinear").input[1], -1.0)


def scale_per_channel(model: ModelProto) -> None:
    change(model, first(model, "QuantizeLinear").input[1], [1.0] * 12)


def weight_in_16_bit(model: ModelProto) -> None:
    node = eight_bit_product(model)
    node.input[1] = next(t.name for t in model.graph.initializer if list(t.dims) == [12, 36])


def activation_in_16_bit(model: ModelProto) -> None:
    eight_bit_product(model).input[0] = first(model, "LayerNormalization").output[0]


def dequantized_into_a_sum(model: ModelProto) -> None:
    first(model, "Sigmoid").input[0] = first(model, "DequantizeLinear").output[0]


def behind_a_product(model: ModelProto) -> None:
    first(model, "QuantizeLinear").input[0] = eight_bit_product(model).output[0]


def quantized_twice(model: ModelProto) -> None:
    one, two = [node for node in model.graph.node if node.op_type == "QuantizeLinear"][:2]
    two.input[0] = one.input[0]


def pair_after_pair(model: ModelProto) -> None:
    dequantized = {n.input[0]: n.output[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
    one, two = [node for node in model.graph.node if node.op_type == "QuantizeLinear"][:2]
    two.input[0] = dequantized[one.output[0]]


def lonely(model: ModelProto) -> None:
    made = first(model, "QuantizeLinear").output[0]
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] == made:
            node.op_type = "Cast"


def along_the_inputs(model: ModelProto) -> None:
    source = eight_bit_product(model).input[1]
    node = next(node for node in model.graph.node if source in node.output)
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", 0))


def inside_attention(model: ModelProto) -> None:
    model.functions[1].node.append(helper.make_node("QuantizeLinear", ["a", "b", "c"], ["d"]))


FAULTS: dict[str, tuple[Callable[[ModelProto], None], str]] = {
    "zero point": (zero_point, "its zero point is not 0"),
    "unsigned": (unsigned, "quantizes to uint8; TensorRT takes INT8 and FP8 E4M3"),
    "no zero point": (no_zero_point, "quantizes to unsigned INT8"),
    "scale": (negative_scale, "a scale is not a positive number"),
    "scale per channel": (scale_per_channel, "an activation needs one scale, not 12"),
    "weight": (weight_in_16_bit, "only its activation is in 8 bits"),
    "activation": (activation_in_16_bit, "only its weight is in 8 bits"),
    "sum": (dequantized_into_a_sum, r"is read by node_sigmoid \(Sigmoid\)"),
    "output": (behind_a_product, "stands behind the product"),
    "twice": (quantized_twice, "is quantized by .* as well"),
    "needless pair": (pair_after_pair, "quantizes again what"),
    "no pair": (lonely, "is not followed by DequantizeLinear alone"),
    "axis": (along_the_inputs, "along axis 0, not along the output channels"),
    "attention": (inside_attention, "attention stays in floating point"),
}


@pytest.mark.parametrize(("breaks", "text"), FAULTS.values(), ids=FAULTS)
def test_found(breaks: Callable[[ModelProto], None], text: str, quantized: ModelProto) -> None:
    model = ModelProto()
    model.CopyFrom(quantized)
    assert placement_faults(model) == []
    breaks(model)
    faults = placement_faults(model)
    assert faults
    with pytest.raises(AssertionError, match=text):
        raise AssertionError("\n".join(faults))
