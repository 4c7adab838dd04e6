"""The fused kernel of the window attention as a plugin of TensorRT: compiled ahead of time, part of the engine, no Python when it runs.

`layer.py` says what a layer needs, `compile.py` makes PTX of it, `launch.py` says how TensorRT launches it, `registration.py` tells
TensorRT, and `model.py` prepares the ONNX model.
"""
