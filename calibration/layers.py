"""The matmuls and convolutions of a network outside of attention: which may be quantized, and how much work each one is.

    1x1 convolutions (matmuls), 3x3 convolutions between blocks, ESC's large kernel           may be quantized
    whatever reads the picture                                                                kept
    what the architecture names (`Architecture.kept`): first, last, upsampler                 kept
    depthwise convolutions (9 MACs per value: no faster in 8 bits)                            kept
    products of which no factor is a constant (ESC's dynamic kernel)                          kept
    products on a mean over the picture (ESC: a few MACs per picture)                         kept

Attention scores, softmax and position codes are inside model-local functions, LayerNorm and sums are no products: none of them is
ever a candidate.
"""

import dataclasses
from collections.abc import Mapping
from fnmatch import fnmatchcase

import onnx
from onnx import ModelProto, NodeProto

from flashrib.model.architectures.registry import ARCHITECTURES, architecture_named
from flashrib.runtime.errors import ModelError, UsageError

PRODUCTS = ("Conv", "MatMul", "Gemm")
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@dataclasses.dataclass(frozen=True)
class Layer:
    """A convolution or matmul of the main graph.

    Attributes:
        name: what people call it, such as "blocks.0.ffns.3.proj": the name of its bias or weight without the ending.
        node: name of its node.
        op: "Conv", "MatMul" or "Gemm".
        input: name of the activation that it reads.
        weight: name of its weight, or of the second factor where that is no constant.
        output: name of the product, before a bias that is added by a node of its own.
        add: name of the node that adds its bias, or "" where it has none or adds it itself.
        kept: why it must not be quantized, or "" for a candidate.
        depth: number of weights that one output value is made of; 0 where the weight is no constant.
    """

    name: str
    node: str
    op: str
    input: str
    weight: str
    output: str
    add: str
    kept: str
    depth: int

    @property
    def axis(self) -> int:
        """Axis of the output channels in the weight: (out, in, h, w) of a Conv, (in, out) of a MatMul."""
        return 0 if self.op == "Conv" else 1


def find_layers(model: ModelProto) -> list[Layer]:
    """Return all products of the main graph, in order.

    Raises:
        ModelError: the model is quantized already, or has no product that may be quantized.
    """
    graph = model.graph
    if any(node.op_type in QUANTIZERS for node in graph.node):
        raise ModelError("the model is quantized already: calibrate the file that it was made from")
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    pooled, named = _pooled(model), _kept_by_architecture(model)
    layers = []
    for node in graph.node:
        if node.op_type not in PRODUCTS:
            continue
        add = _bias_add(node, readers, set(weights))
        name = _name(node, add, set(weights))
        constant = weights.get(node.input[1])
        layers.append(
            Layer(
                name=name,
                node=node.name,
                op=node.op_type,
                input=node.input[0],
                weight=node.input[1],
                output=node.output[0],
                add=add.name if add is not None else "",
                kept=_reason_to_keep(node, name, constant, graph.input[0].name, pooled, named),
                depth=_depth(node, list(constant.dims)) if constant is not None else 0,
            )
        )
    if not any(not layer.kept for layer in layers):
        raise ModelError("the model has no convolution or matmul that may be quantized")
    return layers


def _kept_by_architecture(model: ModelProto) -> Mapping[str, str]:
    """Patterns of names of layers that the model's architecture keeps -> why; those of all where the model does not name a known one."""
    name = next((entry.value for entry in model.metadata_props if entry.key == "flashrib.architecture"), "")
    try:
        return architecture_named(name).kept
    except UsageError:
        return {pattern: why for row in ARCHITECTURES.values() for pattern, why in row.kept.items()}


def _reason_to_keep(
    node: NodeProto,
    name: str,
    weight: onnx.TensorProto | None,
    picture: str,
    pooled: set[str],
    named: Mapping[str, str],
) -> str:
    if weight is None:
        return "no constant factor"
    if node.input[0] in pooled or node.op_type == "Gemm":
        return "on a mean over the picture"
    if node.input[0] == picture:
        return "first convolution"
    for pattern, why in named.items():
        if fnmatchcase(name, pattern):
            return why
    if node.op_type == "Conv" and _group(node) > 1:
        return "depthwise"
    return ""


def _pooled(model: ModelProto) -> set[str]:
    """Names of values that come from a mean over the picture without a product in between that has other inputs."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "ReduceMean" or (
            node.op_type in ("Gemm", "Gelu", "Reshape") and node.input and node.input[0] in found
        ):
            found.update(node.output)
    return found


def _name(node: NodeProto, add: NodeProto | None, constants: set[str]) -> str:
    """The exporter keeps the module's path in the names of biases and of convolutions' weights, not of transposed weights."""
    candidates = [name for name in (*node.input[1:], *(add.input if add is not None else ())) if name in constants]
    for name in candidates:
        path, _, ending = name.rpartition(".")
        if ending in ("bias", "weight") and path:
            return str(path)
    return str(node.name)


def _bias_add(node: NodeProto, readers: dict[str, list[NodeProto]], constants: set[str]) -> NodeProto | None:
    """The node that adds a constant to a MatMul, and is its only reader."""
    if node.op_type != "MatMul":
        return None
    following = readers.get(node.output[0], [])
    if len(following) == 1 and following[0].op_type == "Add" and any(n in constants for n in following[0].input):
        return following[0]
    return None


def _group(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _depth(node: NodeProto, dims: list[int]) -> int:
    if node.op_type == "MatMul":
        return dims[0]
    if node.op_type == "Gemm":
        return dims[1]  # the exporter stores (out, in)
    return dims[1] * dims[2] * dims[3]
