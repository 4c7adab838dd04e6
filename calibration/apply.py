"""Planned layers into the graph: recentring, stored weights, biases, and Q/DQ pairs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from flashrib.calibration.formats import Format
from flashrib.calibration.graph import constant
from flashrib.calibration.insert import QuantizedLayer, insert_pairs
from flashrib.calibration.plan import LayerPlan
from flashrib.export.passes.remove_unused import remove_unused


def with_layers(model: ModelProto, plans: Sequence[LayerPlan], kind: Format) -> ModelProto:
    """Return a copy of `model` in which the planned layers compute in 8 bits; the others stay as they are."""
    result = ModelProto()
    result.CopyFrom(model)
    if not plans:
        return result
    recentred: dict[tuple[str, bool], str] = {}
    layers = []
    for plan in plans:
        layer = plan.layer
        node = _node(result, layer.node)
        padded = layer.op == "Conv" and plan.recentring.offset is not None
        key = layer.input, padded
        if key not in recentred:
            recentred[key] = _recentre(result, node, plan, padded, [p.layer.node for p in plans])
        if padded:
            for attribute in node.attribute:
                if attribute.name == "pads":
                    attribute.ints[:] = [0] * len(attribute.ints)
        node.input[0] = recentred[key]
        node.input[1] = _add_constant(result, f"{layer.name}.weight_q", plan.weight, layer.weight)
        if plan.correction is not None:
            _correct_bias(result, plan, node)
        layers.append(
            QuantizedLayer(node.name, node.input[0], node.input[1], layer.axis, plan.scale, plan.weight_scale)
        )
    remove_unused(result)
    return insert_pairs(result, layers, kind)


def _recentre(model: ModelProto, node: NodeProto, plan: LayerPlan, padded: bool, planned: list[str]) -> str:
    """Put the nodes of the recentring in front of `node` and return the name of the value that it reads then."""
    name, recentring = plan.layer.input, plan.recentring
    given = recentring.offset if recentring.offset is not None else recentring.factor
    if given is None:
        return name
    channels = len(given)
    factor = recentring.factor if recentring.factor is not None else np.ones(channels)
    shift = -recentring.offset * factor if recentring.offset is not None else None
    source = next((n for n in model.graph.node if name in n.output), None)
    readers = [n for n in model.graph.node if name in n.input]
    if (
        source is not None
        and source.op_type == "LayerNormalization"
        and all(n.name in planned for n in readers)
        and not padded
    ):
        _fold_into_norm(model, source, factor, shift)
        return name
    shape = (channels, 1, 1) if node.op_type == "Conv" else (channels,)
    like = node.input[1]
    nodes: list[NodeProto] = []
    current = name
    if padded:
        pads = next(list(a.ints) for a in node.attribute if a.name == "pads")
        sizes = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
        current = _follow(nodes, "Pad", [current, _add_constant(model, f"{name}_pads", sizes)], f"{name}_padded")
    if recentring.factor is not None:
        values = _add_constant(model, f"{name}_factor", factor.reshape(shape), like)
        current = _follow(nodes, "Mul", [current, values], f"{name}_smoothed")
    if shift is not None:
        values = _add_constant(model, f"{name}_shift", shift.reshape(shape), like)
        current = _follow(nodes, "Add", [current, values], f"{name}_centred")
    place = next(i for i, n in enumerate(model.graph.node) if n.name == node.name)
    first = min(next(i for i, n in enumerate(model.graph.node) if n.name == reader.name) for reader in readers)
    for offset, new in enumerate(nodes):
        model.graph.node.insert(min(place, first) + offset, new)
    return current


def _follow(nodes: list[NodeProto], op: str, inputs: list[str], output: str) -> str:
    nodes.append(onnx.helper.make_node(op, inputs, [output], name=output))
    return output


def _fold_into_norm(model: ModelProto, norm: NodeProto, factor: NDArray[Any], shift: NDArray[Any] | None) -> None:
    """weight * factor, bias * factor + shift: a LayerNorm of its own constants, which others may share."""
    weight, like = constant(model, norm.input[1]), norm.input[1]
    bias = constant(model, norm.input[2]) if len(norm.input) > 2 and norm.input[2] else np.zeros_like(weight)
    added = bias * factor if shift is None else bias * factor + shift
    norm.input[1] = _add_constant(model, f"{norm.output[0]}_weight_q", weight * factor, like)
    name = _add_constant(model, f"{norm.output[0]}_bias_q", added, like)
    if len(norm.input) > 2:
        norm.input[2] = name
    else:
        norm.input.append(name)


def _correct_bias(model: ModelProto, plan: LayerPlan, node: NodeProto) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    holder = _node(model, plan.layer.add) if plan.layer.add else node
    places = range(2) if plan.layer.add else (2,)
    index = next(i for i in places if holder.input[i] in constants)
    bias = constant(model, holder.input[index])
    holder.input[index] = _add_constant(model, f"{plan.layer.name}.bias_q", bias + plan.correction, holder.input[index])


def _add_constant(model: ModelProto, name: str, values: NDArray[Any], like: str = "") -> str:
    """Add an initialiser, of the type of another one where that is named."""
    kind = constant(model, like).dtype if like else values.dtype
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values, kind), name))
    return name


def _node(model: ModelProto, name: str) -> NodeProto:
    node: NodeProto = next(node for node in model.graph.node if node.name == name)
    return node
