"""`flashrib::WindowAttention` and what belongs to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flashrib.export.operators.operator import AttentionLayer, Auxiliary, Body, Operator, Place, Plugin
from flashrib.export.operators.window.bodies import (
    attention_native,
    attention_onnxruntime,
    attention_padded,
    attention_standard,
    geometry,
    position_codes,
)

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def window_body(core: str, opsets: dict[str, int]) -> Body:
    """Body with this text between the cut into windows and the way back."""

    def functions(place: Place) -> list[str]:
        before, after = _padding(place)
        head = place.head("WindowAttention <window, num_heads, shift> (qkv, pos_q, pos_k) => (out)")
        return ["".join((head, "{", geometry.SIZES, before, geometry.PARTITION, core, geometry.MERGE, after, "}"))]

    return Body(functions, opsets)


def _gathering(place: Place) -> list[str]:
    """Body for ONNX Runtime: one Gather of pixels each makes windows out of the feature map and the map out of windows."""
    odd = any(side % 8 for node in place.nodes for side in widths_of_heads(place.model, node))
    core = attention_onnxruntime.CORE_COMPLETED if odd else attention_onnxruntime.CORE
    head = place.head("WindowAttention <window, num_heads, shift> (qkv, pos_q, pos_k) => (out)")
    parts = (geometry.SIZES, geometry.SOURCES, geometry.GATHER_WINDOWS, core, geometry.GATHER_PIXELS)
    return ["".join((head, "{", *parts, "}"))]


def widths_of_heads(model: ModelProto, node: NodeProto) -> tuple[int, ...]:
    """Channels of a head of v, and of q with its position codes, of a node, as far as the graph says them."""
    from onnx import helper

    known = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.input, *model.graph.value_info)}
    if not (sides := known.get(node.input[0])) or not sides[-1].dim_value:
        return ()
    head = sides[-1].dim_value // (3 * helper.get_node_attr_value(node, "num_heads"))
    made_by = {output: made for made in model.graph.node for output in made.output}
    name = node.input[1]
    while (made := made_by.get(name)) is not None and made.input:  # the codes themselves, or the last of their factors
        name = made.input[2 if made.op_type == "PositionCodes" else 0]
    ranks = [tensor.dims[-1] for tensor in model.graph.initializer if tensor.name == name]
    return (head, *(head + rank for rank in ranks))


def _padding(place: Place) -> tuple[str, str]:
    """Text that pads the feature map to whole windows, and text that crops it again, as the model's layers and size need them."""
    from onnx import helper

    attributes = [{name: helper.get_node_attr_value(n, name) for name in ("window", "shift")} for n in place.nodes]
    if any(any(values["shift"]) for values in attributes):
        return geometry.PAD_SHIFTED, geometry.CROP_SHIFTED
    height, width = (d.dim_value for d in place.model.graph.input[0].type.tensor_type.shape.dim[2:])  # 0: dynamic
    windows = [values["window"] for values in attributes]
    if height and width and all(height % rows == 0 and width % columns == 0 for rows, columns in windows):
        return geometry.WHOLE, geometry.WHOLE_CROP
    return geometry.PAD, geometry.CROP


def _position_codes(place: Place) -> list[str]:
    return [place.head("PositionCodes (rows, columns, to_q, to_k) => (pos_q, pos_k)") + position_codes.BODY]


def _layer(node: NodeProto, model: ModelProto) -> AttentionLayer:
    from onnx import helper

    rows, columns = helper.get_node_attr_value(node, "window")
    heads = helper.get_node_attr_value(node, "num_heads")
    return AttentionLayer(node.name, f"window {rows}x{columns}", rows * columns, heads, (rows, columns))


WINDOW_ATTENTION = Operator(
    op_type="WindowAttention",
    attributes=("window", "num_heads", "shift"),
    bodies={
        "onnxruntime": Body(_gathering, attention_onnxruntime.OPSETS),
        "standard": window_body(attention_standard.CORE, attention_standard.OPSETS),
        "attention": window_body(attention_native.CORE, attention_native.OPSETS),
        "padded": window_body(attention_padded.CORE, attention_padded.OPSETS),
    },
    default={"fp32": "onnxruntime", "fp16": "onnxruntime", "bf16": "attention"},
    engine_body="attention",
    older_engine_body="padded",
    auxiliary=(Auxiliary("PositionCodes", _position_codes),),
    layer=_layer,
    plugin=Plugin(
        "flashrib.export.operators.window.plugin.registration",
        (
            "flashrib.export.operators.plugin",
            "flashrib.export.operators.window.plugin",
            "flashrib.model.attention.window",
        ),
    ),
    onnxruntime_kernel="flashrib.export.operators.window.onnxruntime",
)
