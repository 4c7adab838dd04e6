"""Rewrites of a plain ONNX file for ONNX Runtime's CUDA provider, to be measured by `onnxruntime_gpu.py --variants`.

None changes the result. Operators of the domain `com.microsoft` are ONNX Runtime's own.

    skip      bias, residual sum and LayerNorm behind a matrix product become one SkipLayerNormalization
    gelu      bias and gelu behind a matrix product become one BiasGelu
    gate      the depthwise and the 1x1 convolution of a gate become one 3x3 convolution, which adds the bias
    conv      every other matrix product with a bias becomes a 1x1 convolution, which adds it
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from flashrib.export.passes.remove_unused import remove_unused

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # channels first, channels last
MICROSOFT = "com.microsoft"


class Graph:
    """A graph that nodes are replaced in.

    Attributes:
        nodes: in order; names of results stay, so that what reads them needs no change.
    """

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self.nodes = list(model.graph.node)
        self.values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._new = 0

    def maker(self, name: str) -> NodeProto | None:
        return next((node for node in self.nodes if name in node.output), None)

    def readers(self, name: str) -> list[NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def only_reader(self, name: str) -> NodeProto | None:
        found = self.readers(name)
        return found[0] if len(found) == 1 else None

    def name(self) -> str:
        self._new += 1
        return f"rewritten_{self._new}"

    def constant(self, value: NDArray[Any]) -> str:
        name = self.name()
        self.values[name] = value
        self._model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def replace(self, old: Sequence[NodeProto], new: Sequence[NodeProto]) -> None:
        """Put `new` in the place of the last of `old`."""
        place = max(self.nodes.index(node) for node in old)
        kept = [node for node in self.nodes[: place + 1] if all(node is not gone for gone in old)]
        self.nodes = [*kept, *new, *self.nodes[place + 1 :]]

    def store(self) -> None:
        del self._model.graph.node[:]
        self._model.graph.node.extend(self.nodes)
        if all(o.domain != MICROSOFT for o in self._model.opset_import):
            self._model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))


def _biased(graph: Graph, add: NodeProto | None) -> tuple[NodeProto, str] | None:
    """The matrix product and the bias of a node that adds a bias."""
    if add is None or add.op_type != "Add":
        return None
    for product, bias in (add.input, reversed(add.input)):
        node = graph.maker(product)
        if node is not None and node.op_type == "MatMul" and bias in graph.values and graph.values[bias].ndim == 1:
            return node, bias
    return None


def skip(graph: Graph) -> None:
    for norm in [node for node in graph.nodes if node.op_type == "LayerNormalization"]:
        total = graph.maker(norm.input[0])
        if total is None or total.op_type != "Add":
            continue
        for linear, residual in (total.input, reversed(total.input)):
            add = graph.maker(linear)
            found = _biased(graph, add)
            if add is None or found is None or len(graph.readers(linear)) != 1:
                continue
            product, bias = found[0].output[0], found[1]
            shape = graph.constant(np.array([0, -1, graph.values[bias].shape[0]]))
            full, flat, flat_residual, flat_norm, flat_total = (graph.name() for _ in range(5))
            epsilon = next(a.f for a in norm.attribute if a.name == "epsilon")
            new = [
                helper.make_node("Shape", [residual], [full]),
                helper.make_node("Reshape", [product, shape], [flat]),
                helper.make_node("Reshape", [residual, shape], [flat_residual]),
                helper.make_node(
                    "SkipLayerNormalization",
                    [flat, flat_residual, norm.input[1], norm.input[2] if len(norm.input) > 2 else "", bias],
                    [flat_norm, "", "", flat_total],
                    domain=MICROSOFT,
                    epsilon=epsilon,
                ),
                helper.make_node("Reshape", [flat_norm, full], [norm.output[0]]),
                helper.make_node("Reshape", [flat_total, full], [total.output[0]]),
            ]
            place = graph.nodes.index(total)  # the sum has readers before the norm
            graph.nodes = [node for node in graph.nodes if node is not add and node is not total and node is not norm]
            graph.nodes[place - 1 : place - 1] = new
            break


def gelu(graph: Graph) -> None:
    for node in [node for node in graph.nodes if node.op_type == "Gelu"]:
        add = graph.maker(node.input[0])
        found = _biased(graph, add)
        if add is None or found is None or len(graph.readers(add.output[0])) != 1:
            continue
        new = helper.make_node("BiasGelu", [found[0].output[0], found[1]], [node.output[0]], domain=MICROSOFT)
        graph.replace([add, node], [new])


def gate(graph: Graph) -> None:
    for sigmoid in [node for node in graph.nodes if node.op_type == "Sigmoid"]:
        add = graph.maker(sigmoid.input[0])
        found = _biased(graph, add)
        last = graph.maker(found[0].input[0]) if found else None
        conv = graph.maker(last.input[0]) if last is not None and last.op_type == "Transpose" else None
        if add is None or found is None or last is None or conv is None or conv.op_type != "Conv":
            continue
        taps = graph.values[conv.input[1]].astype(np.float64)  # (C, 1, 3, 3)
        weight = graph.values[found[0].input[1]].astype(np.float64)  # (C, out)
        whole = (weight.T[:, :, None, None] * taps[None, :, 0]).astype(graph.values[conv.input[1]].dtype)
        bias = graph.values[found[1]]
        if len(conv.input) > 2:
            bias = (bias + graph.values[conv.input[2]].astype(np.float64) @ weight).astype(bias.dtype)
        inputs = [conv.input[0], graph.constant(whole), graph.constant(bias)]
        moved = graph.name()
        new = [
            helper.make_node("Conv", inputs, [moved], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
            helper.make_node("Transpose", [moved], [add.output[0]], perm=TO_LAST),
        ]
        graph.replace([conv, last, found[0], add], new)


def conv(graph: Graph) -> None:
    for add in [node for node in graph.nodes if node.op_type == "Add"]:
        found = _biased(graph, add)
        if found is None or len(graph.readers(found[0].output[0])) != 1:
            continue
        weight = graph.values[found[0].input[1]]
        first, moved = graph.name(), graph.name()
        kernel = graph.constant(weight.T[:, :, None, None])
        new = [
            helper.make_node("Transpose", [found[0].input[0]], [first], perm=TO_FIRST),
            helper.make_node("Conv", [first, kernel, found[1]], [moved], kernel_shape=[1, 1]),
            helper.make_node("Transpose", [moved], [add.output[0]], perm=TO_LAST),
        ]
        graph.replace([found[0], add], new)


REWRITES: dict[str, Callable[[Graph], None]] = {"skip": skip, "gelu": gelu, "gate": gate, "conv": conv}


def rewritten(model: ModelProto, names: Sequence[str]) -> ModelProto:
    """A copy of a model, changed by the rewrites of these names, in the order of the table."""
    result = ModelProto()
    result.CopyFrom(model)
    graph = Graph(result)
    for name, change in REWRITES.items():
        if name in names:
            change(graph)
    graph.store()
    remove_unused(result)
    onnx.checker.check_model(result)
    return result
