"""Body with ONNX's own `Attention` (opset 23): the form that TensorRT fuses.

TensorRT wants one head size for q, k and v, so all three are zero-padded to D + R channels and the result is sliced. The position
codes are padded on the other side and added by broadcast: concatenated instead, a builder would fold one copy of them per window.
"""

OPSETS = {"": 23}

CORE = """
  width_q = Shape <start: int = 3, end: int = 4> (q)
  width_codes = Shape <start: int = 2, end: int = 3> (pos_q)
  last_axis = Constant <value_ints: ints = [3]> ()
  codes_axis = Constant <value_ints: ints = [2]> ()
  after = Concat <axis: int = 0> (zero, width_codes)
  before = Concat <axis: int = 0> (width_q, zero)
  head_q = Transpose <perm: ints = [0, 2, 1, 3]> (q)
  head_k = Transpose <perm: ints = [0, 2, 1, 3]> (k)
  head_v = Transpose <perm: ints = [0, 2, 1, 3]> (v)
  padded_q = Pad (head_q, after, , last_axis)
  padded_k = Pad (head_k, after, , last_axis)
  padded_v = Pad (head_v, after, , last_axis)
  codes_q = Pad (pos_q, before, , codes_axis)
  codes_k = Pad (pos_k, before, , codes_axis)
  query = Add (padded_q, codes_q)
  key = Add (padded_k, codes_k)
  attended_wide = Attention <scale: float = 1.0> (query, key, padded_v)
  attended_heads = Slice (attended_wide, zero, width_q, last_axis)
  attended_tokens = Transpose <perm: ints = [0, 2, 1, 3]> (attended_heads)
  attended_shape = Concat <axis: int = 0> (window_count, tokens, rest)
  attended = Reshape (attended_tokens, attended_shape)
"""
