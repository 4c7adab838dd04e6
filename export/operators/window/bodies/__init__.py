"""Bodies of the model-local functions, one form per file, written as ONNX text."""
