"""Do the Q/DQ pairs stand where TensorRT fuses them?

Rules of explicit quantization, after NVIDIA's documentation of TensorRT ("Explicit Quantization", sections on Q/DQ placement and
limitations: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html),
as far as they concern convolutions and matmuls with constant weights. A pair that breaks one of them is not wrong, but it stays
in the engine as a conversion of its own, or the product runs in 16 bit.
"""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from flashrib.calibration.layers import QUANTIZERS

EIGHT_BITS: dict[int, str] = {TensorProto.INT8: "INT8", TensorProto.FLOAT8E4M3FN: "FP8 E4M3"}
_OUTPUT_AXIS = {"Conv": 0, "MatMul": 1}


def placement_faults(model: ModelProto) -> list[str]:
    """Return every rule that a pair breaks, one line each; none where all is well."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    faults: list[str] = []
    for function in model.functions:
        if any(node.op_type in QUANTIZERS for node in function.node):
            faults.append(f"{function.name}: quantized inside, but attention stays in floating point")
    kinds = set()
    quantized_from: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in QUANTIZERS:
            kinds.add(_kind(node, constants))
            faults += _parameters(node, constants)
        if node.op_type == "QuantizeLinear":
            source = makers.get(node.input[0])
            if source is not None and source.op_type == "DequantizeLinear":
                faults.append(f"{node.name}: quantizes again what {source.name} has just dequantized")
            if source is not None and source.op_type in _OUTPUT_AXIS:
                faults.append(f"{node.name}: stands behind the product {source.name}, whose output stays in 16 bit")
            if node.input[0] in quantized_from:
                faults.append(f"{node.name}: {node.input[0]} is quantized by {quantized_from[node.input[0]]} as well")
            quantized_from[node.input[0]] = node.name
            followers = readers.get(node.output[0], [])
            if not followers or any(reader.op_type != "DequantizeLinear" for reader in followers):
                faults.append(f"{node.name}: is not followed by DequantizeLinear alone")
        elif node.op_type == "DequantizeLinear":
            source = makers.get(node.input[0])
            if node.input[0] not in constants and (source is None or source.op_type != "QuantizeLinear"):
                faults.append(f"{node.name}: reads neither a QuantizeLinear nor a constant in 8 bits")
            for reader in readers.get(node.output[0], []):
                if reader.op_type not in _OUTPUT_AXIS:
                    faults.append(
                        f"{node.name}: is read by {reader.name} ({reader.op_type}), which does not compute in 8 bits"
                    )
        elif node.op_type in _OUTPUT_AXIS:
            faults += _product(node, makers, constants)
    if len(kinds) > 1:
        faults.append(f"the file mixes {' and '.join(sorted(kinds))}")
    return faults


def _kind(node: NodeProto, constants: dict[str, TensorProto]) -> str:
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if zero is None:
        return "unsigned INT8"
    return EIGHT_BITS.get(zero.data_type) or str(helper.tensor_dtype_to_np_dtype(zero.data_type))


def _parameters(node: NodeProto, constants: dict[str, TensorProto]) -> list[str]:
    """Symmetric, signed, with constant, finite, positive scales."""
    faults = []
    scale = constants.get(node.input[1])
    zero = constants.get(node.input[2]) if len(node.input) > 2 else None
    if scale is None:
        faults.append(f"{node.name}: its scale is no constant")
    else:
        values = numpy_helper.to_array(scale).astype(np.float64)
        if not (np.isfinite(values).all() and (values > 0).all()):
            faults.append(f"{node.name}: a scale is not a positive number")
        if node.op_type == "QuantizeLinear" and values.size != 1:
            faults.append(f"{node.name}: an activation needs one scale, not {values.size}")
    if zero is None or zero.data_type not in EIGHT_BITS:
        faults.append(
            f"{node.name}: quantizes to {_kind(node, constants)}; TensorRT takes {' and '.join(EIGHT_BITS.values())}"
        )
    elif any(zero.raw_data) or np.any(numpy_helper.to_array(zero).astype(np.float32)):
        faults.append(f"{node.name}: its zero point is not 0, but TensorRT's quantization is symmetric")
    return faults


def _product(node: NodeProto, makers: dict[str, NodeProto], constants: dict[str, TensorProto]) -> list[str]:
    """Both factors in 8 bits or none; a scale per channel along the output channels alone."""
    sources = [makers.get(name) for name in node.input[:2]]
    eight = [source is not None and source.op_type == "DequantizeLinear" for source in sources]
    if not any(eight):
        return []
    if not all(eight):
        return [f"{node.name}: only its {'activation' if eight[0] else 'weight'} is in 8 bits, so it computes in 16"]
    weight = sources[1]
    assert weight is not None
    scale = constants.get(weight.input[1])
    count = int(np.prod(scale.dims)) if scale is not None else 1
    axis = next((a.i for a in weight.attribute if a.name == "axis"), 1)
    if count > 1 and axis != _OUTPUT_AXIS[node.op_type]:
        return [f"{node.name}: its weight has scales along axis {axis}, not along the output channels"]
    return []
