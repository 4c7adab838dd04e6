"""Nodes `flashrib::DiscAttention` of a model of one size -> nodes that the plugin takes: lists of blocks in the place of the grid.

ONNX Runtime's library has its own way (`flashrib.export.operators.disc.onnxruntime`), with what is shared here.
"""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from flashrib.export.operators.operator import DOMAIN
from flashrib.model.attention.disc.blocks import block_lists
from flashrib.model.attention.disc.tuning import Blocks, blocks_for
from flashrib.runtime.errors import UsageError

_HEAD_DIM = 128  # of FLUX; blocks are the same for all heads of up to 128 channels


def prepare(model: ModelProto, capability: int) -> None:
    """Change the nodes in place.

    Args:
        model: whose first input (B, H, W, C) is the map of the picture's tokens, of a fixed size.
        capability: compute capability, 10 * major + minor.

    Raises:
        UsageError: the size is open.
    """
    height, width, pooled = size_of(model, "--attention plugin: an engine")
    made: dict[int, list[str]] = {}
    for node in attention_nodes(model):
        radius = helper.get_node_attr_value(node, "radius")
        if radius not in made:
            made[radius] = add_lists(
                model, (height, width), radius, blocks_for(capability, _HEAD_DIM, radius), f"{radius}"
            )
        _change(node, made[radius], height, width, pooled)


def attention_nodes(model: ModelProto) -> list[NodeProto]:
    """The nodes of a model that are changed."""
    return [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, "DiscAttention")]


def size_of(model: ModelProto, what: str) -> tuple[int, int, int]:
    """Return height and width of the picture in tokens, and the number of pooled keys.

    Raises:
        UsageError: the size is open; `what` is what can be made for one size alone.
    """
    dims = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    height, width = dims[1:3] if len(dims) == 4 else (0, 0)
    if not (height and width):
        raise UsageError(f"{what} of this model is for one size of picture: export it with --tile HxW")
    pools = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, "PoolTokens")]
    factor = helper.get_node_attr_value(pools[0], "factor") if pools else 0
    return height, width, height * width // factor**2 if factor else 0


def add_lists(model: ModelProto, grid: tuple[int, int], radius: int, blocks: Blocks, suffix: str) -> list[str]:
    """Add lists of blocks to the initialisers of a model and return their names: starts, full, blocks."""
    lists = block_lists(grid, radius, blocks.tile, blocks.keys)
    names = []
    for name, values in (("starts", lists.starts), ("full", lists.full), ("blocks", lists.blocks)):
        tensor = numpy_helper.from_array(np.ascontiguousarray(values), f"disc_{name}_{suffix}")
        model.graph.initializer.append(tensor)
        names.append(tensor.name)
    return names


def _change(node: NodeProto, lists: list[str], height: int, width: int, pooled: int) -> None:
    inputs = [*node.input[:3], *lists]
    del node.input[:]
    node.input.extend(inputs)
    for name, value in (("height", height), ("width", width), ("pooled", pooled)):
        node.attribute.append(onnx.helper.make_attribute(name, value))
