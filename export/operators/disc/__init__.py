"""`flashrib::DiscAttention` and `flashrib::PoolTokens`: CLEAR's attention in ONNX files, and its plugin for TensorRT."""
