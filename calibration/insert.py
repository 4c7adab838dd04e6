"""Q/DQ pairs into a graph, by onnxruntime.quantization, exactly where and with exactly the scales that we say."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from flashrib.calibration.formats import Format


@dataclasses.dataclass(frozen=True)
class QuantizedLayer:
    """A node (Conv or MatMul) that shall compute in 8 bits.

    Attributes:
        node: its name.
        input: name of its activation.
        weight: name of its weight, an initialiser.
        axis: of the output channels in the weight.
        scale: of the activation.
        weight_scale: of the weight, one per output channel or a single one.
    """

    node: str
    input: str
    weight: str
    axis: int
    scale: float
    weight_scale: NDArray[np.float32]


def insert_pairs(model: ModelProto, layers: Sequence[QuantizedLayer], kind: Format) -> ModelProto:
    """Return `model` with Q/DQ pairs in front of `layers`; the argument may have changed afterwards.

    A layer reads its activation through a pair of QuantizeLinear and DequantizeLinear, which layers that read the same value share,
    and its weight, stored in 8 bits, through a DequantizeLinear. Outputs and biases stay as they are.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    zero = np.zeros((), kind.dtype)
    overrides: dict[str, list[dict[str, Any]]] = {}
    ranges = {}
    for layer in layers:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(types[layer.weight])
        scale = np.asarray(layer.scale, dtype)
        overrides[layer.input] = [{"scale": scale, "zero_point": zero}]
        weight_scale = np.asarray(layer.weight_scale, dtype)
        if kind.per_channel:
            each = [{"axis": layer.axis, "scale": np.asarray(one), "zero_point": zero} for one in weight_scale]
            overrides[layer.weight] = each
        else:
            overrides[layer.weight] = [{"scale": weight_scale, "zero_point": zero}]
        reach = np.float32(layer.scale * kind.largest)
        ranges[layer.input] = TensorData(lowest=-reach, highest=reach)  # the library wants one beside the scale
    _describe(model, {layer.input: types[layer.weight] for layer in layers})
    element = QuantType.QInt8 if kind.name == "int8" else QuantType.QFLOAT8E4M3FN
    quantizer = QDQQuantizer(
        model,
        per_channel=kind.per_channel,
        reduce_range=False,
        weight_qType=element,
        activation_qType=element,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[layer.node for layer in layers],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv", "MatMul"],
        extra_options={
            "TensorQuantOverrides": overrides,
            "OpTypesToExcludeOutputQuantization": ["Conv", "MatMul"],
            "QuantizeBias": False,
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QDQOpTypePerChannelSupportToAxis": {"Conv": 0, "MatMul": 1},
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    result: ModelProto = quantizer.model.model
    _give_back(result, {layer.node for layer in layers}, {layer.input for layer in layers})
    return result


def _give_back(model: ModelProto, quantized: set[str], activations: set[str]) -> None:
    """Let other readers of an activation read it as it was; the library hands the dequantized one to all."""
    pairs = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    dequantized = {
        node.output[0]: pairs[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and pairs.get(node.input[0]) in activations
    }
    for node in model.graph.node:
        if node.name not in quantized:
            for index, name in enumerate(node.input):
                node.input[index] = dequantized.get(name, name)


def _describe(model: ModelProto, types: dict[str, int]) -> None:
    """State the types of values behind model-local functions, which shape inference does not know and the library asks for."""
    described = {value.name for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    for name, kind in types.items():
        if name not in described:
            model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, None))
