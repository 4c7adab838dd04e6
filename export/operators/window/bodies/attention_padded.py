"""Body in standard operators with one head size for q, k and v: the pattern that TensorRT fuses before 10.14; see `padded_heads`.

Where it is not fused, memory is quadratic in the window, as of `attention_standard`, which computes less then.
"""

from flashrib.export.operators.window.bodies import padded_heads

OPSETS: dict[str, int] = {}

CORE = (
    padded_heads.BEFORE
    + """
  keys = Transpose <perm: ints = [0, 1, 3, 2]> (key)
  scores = MatMul (query, keys)
  weights = Softmax <axis: int = -1> (scores)
  attended_wide = MatMul (weights, padded_v)
"""
    + padded_heads.AFTER
)
