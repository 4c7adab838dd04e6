"""The kernel of CLEAR's attention for ONNX Runtime; see `flashrib.export.onnxruntime.launch`.

Lists of blocks are constants of the file, so a file is for one size of picture. They depend on how a GPU cuts the picture: a node has the
lists of all ways that its library's targets need, and each target's kernel is given its own.
"""

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import FunctionProto, ModelProto, NodeProto, helper

from flashrib.export.onnxruntime.launch import PRECISION, Kernel, Launch, Node, Output
from flashrib.export.operators.disc.plugin.layer import Layer, constants, programs
from flashrib.export.operators.disc.plugin.prepare import add_lists, attention_nodes, size_of
from flashrib.export.operators.operator import DOMAIN
from flashrib.model.attention.disc.kernel import disc_attention_kernel
from flashrib.model.attention.disc.tuning import TABLE, Blocks, blocks_for

_LISTS = ("starts", "full", "blocks")
_FACTS = ("text", "radius", "scale")  # of a node as exported
_WAYS = len(TABLE)  # most ways to cut a picture that a library may need


def prepare(model: ModelProto, capabilities: Sequence[int]) -> None:
    """Give the nodes the lists of all ways to cut the picture in the place of the grid, and the size.

    Raises:
        UsageError: the size is open.
    """
    height, width, pooled = size_of(model, "--flavour onnxruntime: a library")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value.type.tensor_type for value in (*inferred.input, *inferred.value_info)}
    made: dict[str, list[str]] = {}
    for node in attention_nodes(model):
        radius = helper.get_node_attr_value(node, "radius")
        kind = known[node.input[0]]
        size = 4 if kind.elem_type == onnx.TensorProto.FLOAT else 2
        cuts = (blocks_for(c, kind.shape.dim[3].dim_value, radius, size) for c in capabilities)
        ways = {_way(blocks): blocks for blocks in cuts}
        del node.input[3:]
        for way, blocks in ways.items():
            suffix = "_".join(map(str, (radius, *way)))
            if suffix not in made:
                made[suffix] = add_lists(model, (height, width), radius, blocks, suffix)
            node.input.extend(made[suffix])
        flat = [side for way in ways for side in way]
        for name, value in (("grid", [height, width]), ("pooled", pooled), ("ways", flat)):
            node.attribute.append(helper.make_attribute(name, value))


def disc_attention(node: Node, capability: int) -> Launch:
    """As `flashrib.model.attention.disc.op.launch` launches it, for one size."""
    at, q = node.attributes, node.inputs["q"]
    heads, head_dim = q.shape[-2:]
    assert heads is not None
    assert head_dim is not None
    blocks = blocks_for(capability, head_dim, at["radius"], node.element_size("q"))
    number = next(i for i in range(0, len(at["ways"]), 4) if tuple(at["ways"][i : i + 4]) == _way(blocks)) // 4
    height, width = at["grid"]
    layer = Layer((height, width), at["text"], at["radius"], at["scale"], at["pooled"], heads, head_dim, q.dtype)
    batch = node.side("q", 0)
    return Launch(
        disc_attention_kernel,
        (
            Output("out", q.dtype, (batch, layer.tokens, heads, head_dim)),
            Output("lse", "fp32", (batch, heads, layer.tokens)),
        ),
        {},
        constants(layer, blocks, PRECISION),
        (batch * programs(layer, blocks),),
        blocks.warps,
        blocks.registers,
        {name: f"{name}_{number}" for name in _LISTS},
    )


def body(name: str, node: NodeProto, opset: int) -> FunctionProto:
    """A function that calls the operator's own, with the grid for the lists."""
    at: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inputs = [f"in{index}" for index in range(len(node.input))]
    grid = helper.make_node("Constant", [], ["grid"], value_ints=at["grid"])
    facts = {fact: at[fact] for fact in _FACTS}
    call = helper.make_node(node.op_type, [*inputs[:3], "grid"], ["out0", "out1"], domain=DOMAIN, **facts)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_function(DOMAIN, name, inputs, ["out0", "out1"], [grid, call], imports)


def _way(blocks: Blocks) -> tuple[int, ...]:
    """How a picture is cut: tile and block of keys."""
    return (*blocks.tile, *blocks.keys)


KERNEL = Kernel(
    ("q", "k", "v", *(f"{name}_{number}" for number in range(_WAYS) for name in _LISTS)),
    disc_attention,
    constant=("q",),
    prepare=prepare,
    body=body,
)
