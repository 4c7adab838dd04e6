"""Low precision on a machine that lacks it: the same graph in float32, with every tensor rounded as the file would round it.

ONNX Runtime's CPU has no kernels for bfloat16, and for fp16 it computes in float32 and leaves out the roundings between two such nodes,
so that a tensor which overflows in fp16 does not overflow there. Inside an attention node nothing is rounded, as in a fused kernel.
"""

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from flashrib.runtime.errors import ModelError

_LOW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def emulated(model: ModelProto) -> ModelProto:
    """Return a graph with ends in float32 that computes in float32 and rounds every low-precision tensor of `model`.

    Raises:
        ModelError: the types of the model cannot be inferred.
    """
    try:
        result = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"the types of the graph cannot be inferred: {error}") from error
    graph = result.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    low = {v.name: v.type.tensor_type.elem_type for v in values if v.type.tensor_type.elem_type in _LOW}
    nodes: list[NodeProto] = []
    ends = {value.name for value in graph.output}
    renamed: dict[str, str] = {}
    for start in (value.name for value in graph.input if value.name in low):
        renamed[start] = f"{start}_exact"
        nodes.extend(_rounding(start, f"{start}_exact", low[start]))
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        roundings: list[NodeProto] = []
        for index, name in enumerate(node.output):
            if name in low:
                raw, exact = f"{name}_raw", name if name in ends else f"{name}_exact"
                node.output[index], renamed[name] = raw, exact
                roundings += _rounding(raw, exact, low[name])
        nodes += [node, *roundings]
    del graph.node[:]
    graph.node.extend(nodes)
    for tensor in graph.initializer:
        if tensor.data_type in _LOW:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.name in low:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return result


def _rounding(source: str, target: str, kind: int) -> list[NodeProto]:
    """To the low precision and back."""
    low = f"{target}_low"
    return [
        onnx.helper.make_node("Cast", [source], [low], to=kind),
        onnx.helper.make_node("Cast", [low], [target], to=TensorProto.FLOAT),
    ]
