"""`flashrib::OffsetAttention` for the table of operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flashrib.export.operators.offset.bodies import dense, loop
from flashrib.export.operators.operator import Body, Operator, Place, Plugin

if TYPE_CHECKING:
    from onnx import NodeProto

MASK_MODES = ("neg_inf", "zero_logit")  # as the attribute mask_mode counts them


def mask_mode(node: NodeProto) -> str:
    """What a node does with keys that are left out."""
    from onnx import helper

    return MASK_MODES[helper.get_node_attr_value(node, "mask_mode")]


def _body(text: Callable[[str], str]) -> Body:
    def functions(place: Place) -> list[str]:
        modes = {mask_mode(node) for node in place.nodes}
        assert len(modes) == 1, "all layers of a network mask alike"
        return [place.head("OffsetAttention <num_heads, mask_mode> (qkv, offsets) => (out)") + text(modes.pop())]

    return Body(functions, {})


OFFSET_ATTENTION = Operator(
    op_type="OffsetAttention",
    attributes=("num_heads", "mask_mode"),
    bodies={"standard": _body(loop.text), "dense": _body(dense.text)},
    engine_body="dense",
    plugin=Plugin(
        "flashrib.export.operators.offset.plugin.registration",
        (
            "flashrib.export.operators.plugin",
            "flashrib.export.operators.offset.plugin",
            "flashrib.model.attention.fibonacci",
        ),
    ),
    onnxruntime_kernel="flashrib.export.operators.offset.onnxruntime",
)
