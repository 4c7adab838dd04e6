"""Post-training quantization of an exported network to INT8 and FP8, with a measured account of what every layer costs.

Pictures -> tiles -> ranges of the activations -> sensitivity of every layer -> the layers that fit the budget -> explicit Q/DQ ONNX.
docs/calibration.md has the rules and the figures.
"""
