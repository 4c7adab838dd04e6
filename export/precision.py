"""float32 graph -> strongly typed graph in fp16 or bf16.

Every node computes in one type, found while walking the graph in order:

    Conv, MatMul, Gemm, operators of `flashrib`            the low precision
    means over the image, auxiliary functions (FLOAT_ONLY) float32, where their row in the table does not say otherwise
    everything else                                        the type of its inputs, the widest where they differ

So whatever follows from a convolution or matmul is in the low precision, residual stream included, and the path of the image itself,
from `input` through its enlargement to the last sum, is in float32 where `input` is. LayerNormalization keeps `stash_type` 1: its
statistics are float32. docs/export.md has the measurements behind these rules.
"""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from flashrib.export.operators.operator import DOMAIN
from flashrib.export.operators.table import OPERATORS, auxiliaries
from flashrib.runtime.errors import ModelError

ELEMENT_TYPES: dict[str, int] = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
PRODUCTS = ("Conv", "MatMul", "Gemm")
FLOAT_ONLY = ("ReduceMean",)

_NUMPY: dict[int, Any] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
    TensorProto.BFLOAT16: ml_dtypes.bfloat16,
}
_SUFFIX: dict[int, str] = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}


def with_precision(model: ModelProto, precision: str, io: str) -> ModelProto:
    """Return `model`, which computes in float32, computing in `precision`.

    Args:
        model: what `flashrib.export.trace` returns.
        precision: "fp32", "fp16" or "bf16".
        io: "fp32" or "fp16", the type of inputs and outputs that are float32 in `model`; casts stand at the ends where it is not that of
            the computation.

    Raises:
        ModelError: a weight is too large for the precision.
    """
    if (precision, io) == ("fp32", "fp32"):
        return model
    result = ModelProto()
    result.CopyFrom(model)
    return _Typing(result, ELEMENT_TYPES[precision], ELEMENT_TYPES[io]).run()


class _Typing:
    """One walk over one graph."""

    def __init__(self, model: ModelProto, low: int, io: int) -> None:
        self.model, self.low, self.io = model, low, io
        graph = model.graph
        self.opset = next(o.version for o in model.opset_import if o.domain == "")
        self.weights = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
        self.inputs = [value.name for value in graph.input if _is_float(value)]
        self.outputs = [value.name for value in graph.output if _is_float(value)]
        self.types: dict[str, int] = dict.fromkeys(self.inputs, io)
        self.casts: dict[tuple[str, int], str] = {}
        self.nodes: list[NodeProto] = []
        self.initializers = [t for t in graph.initializer if t.name not in self.weights]

    def run(self) -> ModelProto:
        graph = self.model.graph
        made = {end: f"{end}_{_SUFFIX[self.low]}" for end in self.outputs}
        read = dict(made)
        if self.io not in (self.low, TensorProto.FLOAT):
            read |= {start: self._as(start, TensorProto.FLOAT) for start in self.inputs}
        for node in graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = read.get(name, name)
            for index, name in enumerate(node.output):
                node.output[index] = made.get(name, name)
            self._type(node)
            self.nodes.append(node)
        self.nodes.extend(_cast(output, end, self.io) for end, output in made.items())
        for value in graph.value_info:
            if value.name in self.types:
                value.type.tensor_type.elem_type = self.types[value.name]
        for value in (*graph.input, *graph.output):
            if value.name in (*self.inputs, *self.outputs):
                value.type.tensor_type.elem_type = self.io
        del graph.node[:]
        graph.node.extend(self.nodes)
        del graph.initializer[:]
        graph.initializer.extend(self.initializers)
        return self.model

    def _type(self, node: NodeProto) -> None:
        """Choose the type of a node, and bring its inputs to it."""
        typed_inputs, typed_outputs = _typed(node, self.opset)
        floats = [i for i in typed_inputs if node.input[i] in self.types or node.input[i] in self.weights]
        if not floats:
            # Inputs of a fixed type, such as the factors of Resize, stay as they are.
            kind: int = TensorProto.FLOAT
        elif (low := _low(node)) is not None:
            kind = self.low if low else TensorProto.FLOAT
        else:
            seen = {self.types[node.input[i]] for i in floats if node.input[i] in self.types}
            kind = TensorProto.FLOAT if len(seen) != 1 else seen.pop()
        for index, name in enumerate(node.input):
            if index in floats:
                node.input[index] = self._as(name, kind)
            elif name in self.weights or (name in self.types and index in _float_inputs(node)):
                node.input[index] = self._as(name, TensorProto.FLOAT)
        if floats:
            exact = _float_outputs(node)
            self.types.update((node.output[i], TensorProto.FLOAT if i in exact else kind) for i in typed_outputs)

    def _as(self, name: str, kind: int) -> str:
        """Return the name of the value `name` in the type `kind`, made on first use."""
        if self.types.get(name) == kind:
            return name
        if (name, kind) in self.casts:
            return self.casts[name, kind]
        taken = name in self.weights and all(key[0] != name for key in self.casts)
        cast = name if taken else f"{name}_{_SUFFIX[kind]}"
        self.casts[name, kind] = cast
        if name in self.weights:
            self.initializers.append(_converted(self.weights[name], cast, kind))
        else:
            self.types[cast] = kind
            self.nodes.append(_cast(name, cast, kind))
        return cast


def _is_float(value: ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)


def _low(node: NodeProto) -> bool | None:
    """True where a node computes in the low precision whatever its inputs are, False where in float32, None where as its inputs do."""
    if node.domain != DOMAIN:
        return True if node.op_type in PRODUCTS else False if node.op_type in FLOAT_ONLY else None
    if node.op_type in OPERATORS:
        return True
    auxiliary = auxiliaries().get(node.op_type)
    return None if auxiliary is None else auxiliary.low


def _float_inputs(node: NodeProto) -> frozenset[int]:
    """Indices of the inputs that are float32 in every precision."""
    row = OPERATORS.get(node.op_type) if node.domain == DOMAIN else None
    return frozenset() if row is None else row.float_inputs


def _float_outputs(node: NodeProto) -> frozenset[int]:
    """Indices of the outputs that are float32 in every precision."""
    row = OPERATORS.get(node.op_type) if node.domain == DOMAIN else None
    return frozenset() if row is None else row.float_outputs


def _typed(node: NodeProto, opset: int) -> tuple[list[int], list[int]]:
    """Return the indices of the inputs and outputs that share the type of the first input."""
    if node.domain == DOMAIN:
        inputs = [index for index in range(len(node.input)) if index not in _float_inputs(node)]
        return inputs, list(range(len(node.output)))
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    if not node.input:
        return [], []
    first = schema.inputs[0].type_str
    last = len(schema.inputs) - 1  # a variadic input repeats the last one
    inputs = [i for i in range(len(node.input)) if schema.inputs[min(i, last)].type_str == first]
    outputs = [i for i in range(len(node.output)) if schema.outputs[min(i, len(schema.outputs) - 1)].type_str == first]
    return inputs, outputs


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return onnx.helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)


def _converted(tensor: TensorProto, name: str, kind: int) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        low = values.astype(_NUMPY[kind])
    if not np.isfinite(low.astype(np.float32)).all():
        raise ModelError(
            f"the weight {tensor.name!r} reaches {np.abs(values).max():.3g}, too much for {_SUFFIX[kind]}:"
            " export with --precision bf16 or fp32"
        )
    return numpy_helper.from_array(low, name)
