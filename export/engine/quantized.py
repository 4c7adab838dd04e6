"""Does an engine compute in 8 bits what its ONNX file says? Otherwise the build fails: a layer that falls back is slower, not wrong."""

from collections.abc import Iterable

from onnx import ModelProto

from flashrib.export.engine.log import EngineLayer
from flashrib.runtime.errors import ModelError

EIGHT_BITS = {"int8": "INT8", "fp8": "FP8"}
_PRODUCTS = ("Conv", "MatMul")


def quantized_nodes(model: ModelProto) -> list[str]:
    """Names of the convolutions and matmuls that read two dequantized values, in order."""
    made = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    return [n.name for n in model.graph.node if n.op_type in _PRODUCTS and set(n.input[:2]) <= made]


def check_quantized(path: str, precision: str, nodes: Iterable[str], layers: list[EngineLayer]) -> None:
    """Raise ModelError where one of `nodes` is in no layer of the engine that reads a value in 8 bits.

    Args:
        path: of the ONNX file, for the error.
        precision: "int8" or "fp8".
        nodes: names of the convolutions and matmuls that the file quantizes.
        layers: of the engine.
    """
    wanted = EIGHT_BITS[precision]
    kept = {node for layer in layers if any(wanted in kind.upper() for kind in layer.reads) for node in layer.nodes}
    expected = list(nodes)
    missing = [node for node in expected if node not in kept]
    if missing:
        raise ModelError(
            f"{path}: TensorRT computes {len(missing)} of {len(expected)} quantized layers in 16 bit, {missing[0]} first:"
            " calibrate with another --mode, or build for other targets"
        )
