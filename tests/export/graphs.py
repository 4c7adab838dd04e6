"""Tiny graphs in ONNX's text form."""

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper


def graph(text: str, *, opset: int = 20, **constants: NDArray[np.generic]) -> ModelProto:
    """Parse a graph, and give it initialisers."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model)
    return model


def run(model: ModelProto, **inputs: NDArray[np.generic]) -> NDArray[np.generic]:
    """Run a model in ONNX Runtime and return its one output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, inputs)
    result: NDArray[np.generic] = output
    return result


def operators(model: ModelProto) -> list[str]:
    """The operators of the graph, in order."""
    return [node.op_type for node in model.graph.node]
