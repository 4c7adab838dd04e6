"""A Gather that takes every index of an axis once and in order is left out.

An exported ESC-RIB has two of them where the tile consists of whole windows: its padding by reflection.
"""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from flashrib.export.passes.graph import rename_inputs, static_shapes


def fold_gather(model: ModelProto) -> None:
    """Remove Gather nodes with constant indices 0..n-1 over an axis of static length n."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = static_shapes(model)
    ends = {value.name for value in model.graph.output}
    kept: list[NodeProto] = []
    replaced: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[1] in constants and node.output[0] not in ends:
            source = replaced.get(node.input[0], node.input[0])
            axis = next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == "axis"), 0)
            length = shapes.get(source, {}).get(axis)
            indices = numpy_helper.to_array(constants[node.input[1]])
            if length is not None and np.array_equal(indices, np.arange(length)):
                replaced[node.output[0]] = source
                continue
        kept.append(node)
    rename_inputs(model, replaced)
    del model.graph.node[:]
    model.graph.node.extend(kept)
