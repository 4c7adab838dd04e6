"""Bodies of the model-local functions, one file per body, written as ONNX text."""
