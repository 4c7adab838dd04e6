"""What several passes need."""

from collections.abc import Mapping

from onnx import ModelProto


def rename_inputs(model: ModelProto, names: Mapping[str, str]) -> None:
    """Let every node that reads a key of `names` read its value instead."""
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = names.get(name, name)


def static_shapes(model: ModelProto) -> dict[str, dict[int, int]]:
    """Return the known static lengths per axis of every described value; an axis counts from the front."""
    graph = model.graph
    return {
        value.name: {
            axis: dim.dim_value
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
            if dim.HasField("dim_value")
        }
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
