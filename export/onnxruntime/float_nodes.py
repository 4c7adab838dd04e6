"""Nodes that ONNX Runtime's CUDA provider computes in float32 where a graph is in bf16, since it has no kernel for bf16."""

import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

MISSING = frozenset({"DepthToSpace", "LeakyRelu", "Pad", "Resize"})
"""Operators of ONNX without such a kernel in ONNX Runtime 1.31, of those that flashrib's graphs have."""

_FLOAT = "_as_float"


def with_float_nodes(model: ModelProto) -> None:
    """Put casts around the nodes of the graph that have no kernel for bf16, in place; weights of theirs become float32."""
    graph = model.graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.BFLOAT16}
    low = {name for name, kind in kinds.items() if kind == TensorProto.BFLOAT16} | weights.keys()
    nodes: list[NodeProto] = []
    there: set[str] = set()
    replaced: set[str] = set()  # weights
    for node in graph.node:
        if node.domain or node.op_type not in MISSING or not low.intersection((*node.input, *node.output)):
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if name not in low:
                continue
            wide = name + _FLOAT
            if wide not in there and name in weights:
                values = numpy_helper.to_array(weights[name]).astype("float32")
                graph.initializer.append(numpy_helper.from_array(values, wide))
                replaced.add(name)
            elif wide not in there:
                nodes.append(_cast(name, wide, TensorProto.FLOAT))
            there.add(wide)
            node.input[index] = wide
        results = [name for name in node.output if name in low]
        for index, name in enumerate(node.output):
            node.output[index] = name + _FLOAT if name in low else name
        nodes.append(node)
        nodes.extend(_cast(name + _FLOAT, name, TensorProto.BFLOAT16) for name in results)
        there.update(name + _FLOAT for name in results)
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for name in replaced - read:
        graph.initializer.remove(weights[name])


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)
