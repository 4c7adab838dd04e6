"""Two Slices that cut one tensor in two along the last axis become one Split.

The exporter writes `tensor_split` as two Slices; ESC-RIB has one such pair per convolutional layer.
"""

import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from flashrib.export.passes.graph import static_shapes


def fuse_split(model: ModelProto) -> None:
    """Replace Slice [0, n) and Slice [n, end) of a tensor, with step 1 on one static axis, by Split."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = static_shapes(model)
    order = {node.output[0]: index for index, node in enumerate(model.graph.node)}
    heads: dict[tuple[str, int, int], NodeProto] = {}
    tails: dict[tuple[str, int, int], NodeProto] = {}
    for node in model.graph.node:
        piece = _piece(node, constants)
        length = shapes.get(node.input[0], {}).get(piece[0]) if piece else None
        if piece is None or length is None:
            continue
        axis, start, stop = piece
        if start == 0 and 0 < stop < length:
            heads[node.input[0], axis, stop] = node
        elif start > 0 and stop >= length:
            tails[node.input[0], axis, start] = node
    fused: dict[str, NodeProto | None] = {}  # output of a Slice -> what stands in its place
    for (source, axis, cut), head in heads.items():
        tail = tails.get((source, axis, cut))
        if tail is None:
            continue
        sizes = onnx.helper.make_tensor(
            f"{head.output[0]}_sizes", onnx.TensorProto.INT64, [2], [cut, shapes[source][axis] - cut]
        )
        sizes.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(sizes), sizes.name)
        )  # raw, so that it can be shared
        model.graph.initializer.append(sizes)
        split = onnx.helper.make_node(
            "Split", [source, sizes.name], [head.output[0], tail.output[0]], name=f"{head.name}_split", axis=axis
        )
        first, second = sorted((head, tail), key=lambda node: order[node.output[0]])
        fused[first.output[0]], fused[second.output[0]] = split, None
    nodes = [fused.get(node.output[0], node) for node in model.graph.node]
    kept = [node for node in nodes if node is not None]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _piece(node: NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[int, int, int] | None:
    """Return (axis, start, stop) of a Slice along one constant axis with step 1, otherwise None."""
    if node.op_type != "Slice" or len(node.input) < 4 or not all(name in constants for name in node.input[1:]):
        return None
    values = [numpy_helper.to_array(constants[name]) for name in node.input[1:]]
    if any(value.size != 1 for value in values) or (len(values) == 4 and values[3].item() != 1):
        return None
    start, stop, axis = (int(value.item()) for value in values[:3])
    return axis, start, stop
