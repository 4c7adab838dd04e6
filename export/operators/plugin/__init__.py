"""What the plugins of all operators share: a Triton kernel compiled to PTX that TensorRT launches, and the model that it is part of.

`ptx.py` makes the PTX, `launch.py` says how TensorRT launches it, and `model.py` prepares the ONNX model. An operator's own plugin stands
in its folder, with a module that registers it.
"""
