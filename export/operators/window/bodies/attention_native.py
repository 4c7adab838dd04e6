"""Body with ONNX's own `Attention` (opset 23), which TensorRT fuses from 10.14 on; see `padded_heads`."""

from flashrib.export.operators.window.bodies import padded_heads

OPSETS = {"": 23}

CORE = (
    padded_heads.BEFORE + "  attended_wide = Attention <scale: float = 1.0> (query, key, padded_v)" + padded_heads.AFTER
)
