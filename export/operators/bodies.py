"""Bodies of the operators in an ONNX file, exchanged by one call.

A node of the domain `flashrib` runs anywhere because its body, a model-local function, is inlined by whoever loads the file. Which
bodies an operator has stands in its row (`flashrib.export.operators.table`); the names mean the same for all operators:

    standard      operators of ONNX that every runtime has
    onnxruntime   ONNX Runtime's own fused attention
    attention     ONNX's Attention, opset 23: what TensorRT fuses from 10.14 on
    padded        the operators of `standard`, of the pattern that TensorRT fuses before 10.14
    none          no body: the node is left to a plugin or a kernel, which the runtime must have
"""

from collections.abc import Iterable, Mapping

import onnx
import onnx.parser
from onnx import FunctionProto, ModelProto, NodeProto

from flashrib.export.operators.operator import DOMAIN, NONE, Functions, Operator, Place
from flashrib.export.operators.table import OPERATORS
from flashrib.runtime.errors import UsageError


def with_body(model: ModelProto, body: str | Mapping[str, str]) -> ModelProto:
    """Return a copy of `model` whose operators have the body `body` in place of the one they had.

    A body that needs a higher opset than the model's raises it: up to 23, every operator that our graphs use keeps its meaning.

    Args:
        model: as from `flashrib.export`.
        body: its name for all operators, or by the operators' names.

    Raises:
        UsageError: an operator of the model has no such body.
    """
    result = ModelProto()
    result.CopyFrom(model)
    names = body_of_operators(model, body)
    rows = [OPERATORS[op_type] for op_type in names]
    foreign = {node.domain for node in result.graph.node}
    opsets = {o.domain: o.version for o in result.opset_import if o.domain in ("", DOMAIN) or o.domain in foreign}
    for row in rows:
        for domain, version in row.bodies[names[row.op_type]].opsets.items() if names[row.op_type] != NONE else ():
            opsets[domain] = max(version, opsets.get(domain, 0))
    for node in result.graph.node:
        if node.domain == DOMAIN:
            node.ClearField("overload")
    del result.functions[:]
    for function in (auxiliary for row in rows for auxiliary in row.auxiliary):
        _write(result, function.op_type, function.functions, {"": opsets[""]})
    for row in rows:
        if names[row.op_type] != NONE:
            chosen = row.bodies[names[row.op_type]]
            _write(result, row.op_type, chosen.functions, {"": opsets[""], **{d: opsets[d] for d in chosen.opsets}})
    ids = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    del result.opset_import[:]
    result.opset_import.extend(ids)
    least = onnx.helper.find_min_ir_version_for([o for o in ids if o.domain == ""])
    result.ir_version = max(result.ir_version, least)
    return result


def body_of_operators(model: ModelProto, body: str | Mapping[str, str]) -> dict[str, str]:
    """Return the body of every operator that the model has, by the operator's name.

    Raises:
        UsageError: an operator of the model has no such body.
    """
    names = {row.op_type: body if isinstance(body, str) else body[row.op_type] for row in operators_of(model)}
    for op_type, name in names.items():
        possible = (*OPERATORS[op_type].bodies, NONE)
        if name not in possible:
            raise UsageError(f"{DOMAIN}::{op_type} has no body {name!r}: choose one of {', '.join(possible)}")
    return names


def default_bodies(model: ModelProto, precision: str) -> dict[str, str]:
    """Return the body of every operator that the model has, by the operator's name, as their rows choose it for a precision."""
    return {row.op_type: row.default.get(precision, "standard") for row in operators_of(model)}


def operators_of(model: ModelProto) -> list[Operator]:
    """Return the rows of the operators that a model has nodes of, in the order of the table."""
    found = {node.op_type for node in operator_nodes(model)}
    return [row for row in OPERATORS.values() if row.op_type in found]


def operator_nodes(model: ModelProto) -> list[NodeProto]:
    """Return the nodes of all operators, in order; those of auxiliary functions are none."""
    return [node for node in model.graph.node if node.domain == DOMAIN and node.op_type in OPERATORS]


def without_functions(model: ModelProto, op_types: Iterable[str]) -> None:
    """Remove the bodies of operators in place: what runs the model must have them."""
    gone = {(DOMAIN, op_type) for op_type in op_types}
    kept = [function for function in model.functions if (function.domain, function.name) not in gone]
    del model.functions[:]
    model.functions.extend(kept)


def _write(model: ModelProto, op_type: str, functions: Functions, opsets: Mapping[str, int]) -> None:
    """Give the model the functions that its nodes of a type call; none where it has no such nodes."""
    nodes = [node for node in model.graph.node if (node.domain, node.op_type) == (DOMAIN, op_type)]
    for function in functions(Place(model, nodes, opsets)) if nodes else ():
        model.functions.append(
            function if isinstance(function, FunctionProto) else onnx.parser.parse_function(function)
        )
