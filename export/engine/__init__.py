"""ONNX -> engine, for both flavours of TensorRT; an engine that does not fuse the attention of every layer is refused."""
