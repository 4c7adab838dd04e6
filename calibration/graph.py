"""Small operations on ONNX graphs that several modules need, and ONNX Runtime with its settings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.sessions.onnx_cpu import open_onnx

Arrays = dict[str, NDArray[Any]]


def runner(model: ModelProto, threads: int | None = None) -> Any:
    """Return a session of ONNX Runtime on the CPU.

    Raises:
        ModelError: ONNX Runtime cannot load the model.
    """
    try:
        return open_onnx(model.SerializeToString(), threads, spinning=False)  # short runs, often beside others
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot load the model: {' '.join(str(error).split())}") from error


def run(session: Any, feeds: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
    """Run a session and return its outputs by name.

    Raises:
        SessionError: ONNX Runtime failed.
    """
    names = list(outputs) if outputs is not None else [value.name for value in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    try:
        values = session.run(names, {name: array for name, array in feeds.items() if name in wanted})
    except Exception as error:
        raise SessionError(f"ONNX Runtime failed: {' '.join(str(error).split())}") from error
    return dict(zip(names, values, strict=True))


def with_outputs(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return a copy of `model` whose outputs are the values `names`, whatever their shapes."""
    result = ModelProto()
    result.CopyFrom(model)
    known = {v.name: v for v in (*result.graph.output, *result.graph.value_info)}
    element = model.graph.output[0].type.tensor_type.elem_type
    outputs = []
    for name in names:
        kind = known[name].type.tensor_type.elem_type if name in known else element
        outputs.append(onnx.helper.make_tensor_value_info(name, kind, None))
    del result.graph.output[:]
    result.graph.output.extend(outputs)
    return result


def part(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> ModelProto:
    """Return the nodes between the values `inputs` and `outputs` as a model of its own; `inputs` lose their shapes.

    Values that are needed and neither computed from `inputs` nor constant must be among the inputs of `model`.
    """
    result = with_outputs(model, outputs)
    graph = result.graph
    used, kept = set(outputs), []
    given = set(inputs)
    for node in reversed(graph.node):
        made = [name for name in node.output if name not in given]
        if used.intersection(made):
            kept.append(node)
            used.update(node.input)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    known = {v.name: v for v in (*graph.input, *graph.value_info)}
    element = model.graph.input[0].type.tensor_type.elem_type
    ends = []
    for name in (*inputs, *(v.name for v in graph.input if v.name not in given)):
        if name in used:
            kind = known[name].type.tensor_type.elem_type if name in known else element
            ends.append(onnx.helper.make_tensor_value_info(name, kind, None))
    tensors = [t for t in graph.initializer if t.name in used]
    copied = [onnx.TensorProto.FromString(t.SerializeToString()) for t in tensors]
    del graph.node[:]
    del graph.input[:]
    del graph.initializer[:]
    del graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.extend(ends)
    graph.initializer.extend(copied)
    return result


def constant(model: ModelProto, name: str) -> NDArray[Any]:
    """Return an initialiser as an array."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    return np.asarray(onnx.numpy_helper.to_array(tensor))


def replace_constant(model: ModelProto, name: str, values: NDArray[Any]) -> None:
    """Give an initialiser other values, in its own type."""
    tensor = next(t for t in model.graph.initializer if t.name == name)
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values, kind), name))
