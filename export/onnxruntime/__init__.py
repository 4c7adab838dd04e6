"""Custom operators for ONNX Runtime's CUDA provider: our kernels, compiled ahead of time, in one shared library."""
