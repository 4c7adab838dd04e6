"""Bodies of `flashrib::OffsetAttention`, as ONNX text."""
