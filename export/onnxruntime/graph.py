"""A graph whose nodes have kernels -> the same graph with an operator of the library in place of each, and what these are."""

import dataclasses
import hashlib
import importlib
from collections.abc import Sequence

import onnx
from onnx import FunctionProto, ModelProto, NodeProto

from flashrib.export.onnxruntime.bodies import BODIES, function_of
from flashrib.export.onnxruntime.launch import ELEMENT_TYPES, Kernel, Node, Tensor
from flashrib.export.onnxruntime.passes import PASSES
from flashrib.export.operators.operator import DOMAIN
from flashrib.export.operators.table import OPERATORS
from flashrib.runtime.errors import ModelError

_NAMES = {number: name for name, number in ELEMENT_TYPES.items()}


@dataclasses.dataclass(frozen=True)
class LibraryOperator:
    """An operator of the library: fixed numbers, types and widths of inputs and outputs, no attributes.

    Attributes:
        name: "gpu_chain_1a2b3c4d", which says by a hash what it computes.
        node: one of the nodes that it is for.
        kernel: how that is launched.
    """

    name: str
    node: Node
    kernel: Kernel


def kernels() -> dict[str, Kernel]:
    """Return the kernels of all nodes that have one, by the nodes' types."""
    rows = {row.op_type: row.onnxruntime_kernel for row in OPERATORS.values() if row.onnxruntime_kernel}
    return PASSES | {op_type: importlib.import_module(module).KERNEL for op_type, module in rows.items()}


def with_library(model: ModelProto, capabilities: Sequence[int]) -> tuple[ModelProto, list[LibraryOperator]]:
    """Return a copy of `model` whose nodes are operators of the library, and these operators.

    Each has a body, that of the node it stands for: where the library is registered, ONNX Runtime takes the library's kernel; where it
    is not, the body.

    Args:
        model: as from `flashrib.export`.
        capabilities: compute capabilities of the library, 10 * major + minor.

    Raises:
        ModelError: there is no node with a kernel, or the shape of one cannot be told.
        UsageError: an operator of the model has a kernel for fixed sizes alone, and the model has none.
    """
    result = ModelProto()
    result.CopyFrom(model)
    table = kernels()
    for op_type in sorted({node.op_type for node in result.graph.node if node.domain == DOMAIN} & table.keys()):
        if prepare := table[op_type].prepare:
            prepare(result, capabilities)
    known = _tensors(result)
    batch = max(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value, 1)
    opset = next(o.version for o in model.opset_import if o.domain == "")
    nodes = [node for node in result.graph.node if node.domain == DOMAIN and node.op_type in table]
    sums = {node.output[2]: node.output[1] for node in nodes if node.op_type == "gpu_fork"}
    operators: dict[str, LibraryOperator] = {}
    for node in nodes:
        if node.op_type == "gpu_taps":
            node.input.append(sums[node.input[0]])
        kernel = table[node.op_type]
        found = _node(node, kernel, known)
        name = f"{node.op_type}_{_hash(found, node.overload)}"
        own = len(node.output)
        outputs = len(kernel.launches(found, capabilities[0])[0].outputs)
        node.output.extend(f"{node.output[0]}_memory_{index}" for index in range(own, outputs))
        if name not in operators:
            operators[name] = LibraryOperator(name, found, kernel)
            if kernel.body is not None:
                result.functions.append(kernel.body(name, node, opset))
            elif node.op_type in BODIES:
                result.functions.append(function_of(name, found, batch, opset))
            else:
                result.functions.append(_wrapper(name, node, own, opset))
        node.op_type, node.overload = name, ""
        present = [i for i in node.input if i]
        del node.input[:], node.attribute[:]
        node.input.extend(present)
    if not operators:
        raise ModelError("the model has no node that there is a kernel for: its operators are none of flashrib")
    if all(o.domain != DOMAIN for o in result.opset_import):
        result.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return result, list(operators.values())


def _wrapper(name: str, node: NodeProto, own: int, opset: int) -> FunctionProto:
    """A function that calls the one that the node calls, which gives the first `own` outputs; the others are memory: anything."""
    inner = NodeProto()
    inner.CopyFrom(node)
    inner.name = ""
    inputs = [f"in{index}" for index, given in enumerate(node.input) if given]
    names = iter(inputs)
    for index, given in enumerate(node.input):
        inner.input[index] = next(names) if given else ""
    outputs = [f"out{index}" for index in range(len(node.output))]
    del inner.output[:]
    inner.output.extend(outputs[:own])
    nothing = onnx.helper.make_tensor("nothing", onnx.TensorProto.FLOAT, [1], [0.0])
    rest = [onnx.helper.make_node("Constant", [], [output], value=nothing) for output in outputs[own:]]
    imports = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid(DOMAIN, 1)]
    return onnx.helper.make_function(DOMAIN, name, inputs, outputs, [inner, *rest], imports)


def _node(node: NodeProto, kernel: Kernel, known: dict[str, tuple[Tensor, bool]]) -> Node:
    inputs = {}
    for argument, name in zip(kernel.inputs, node.input, strict=False):
        if not name:
            continue
        if name not in known:
            raise ModelError(
                f"the shape of {name!r}, an input of {node.op_type}, cannot be told: export the model again"
            )
        tensor, constant = known[name]
        if (
            not constant and argument not in kernel.constant
        ):  # whatever the size of the picture, it is the same operator
            tensor = Tensor(tensor.dtype, (*[None] * (len(tensor.shape) - 1), tensor.shape[-1]))
        inputs[argument] = tensor
    return Node(node.op_type, inputs, {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})


def _hash(node: Node, overload: str) -> str:
    text = repr((sorted(node.inputs.items()), sorted(node.attributes.items()), overload))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _tensors(model: ModelProto) -> dict[str, tuple[Tensor, bool]]:
    """Types and shapes of all tensors, and whether they are initialisers."""
    known: dict[str, tuple[Tensor, bool]] = {}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    for value in (*inferred.value_info, *inferred.input):
        kind = value.type.tensor_type
        dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        if kind.elem_type in _NAMES and dims:
            known[value.name] = Tensor(_NAMES[kind.elem_type], dims), False
    for tensor in model.graph.initializer:
        if tensor.data_type in _NAMES:
            known[tensor.name] = Tensor(_NAMES[tensor.data_type], tuple(tensor.dims)), True
    return known
