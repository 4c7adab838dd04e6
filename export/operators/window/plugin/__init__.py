"""The fused kernel of the window attention as a plugin of TensorRT: compiled ahead of time, part of the engine, no Python when it runs.

`layer.py` says what a layer needs, `compile.py` makes PTX of it, `launch.py` says how TensorRT launches it, and `registration.py` tells
TensorRT. What the plugins of all operators share is in `flashrib.export.operators.plugin`.
"""
