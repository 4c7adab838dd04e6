"""Text shared by the bodies in which q, k and v have one head size, as TensorRT wants them.

All three are zero-padded to D + R channels and the result is sliced. The position codes are padded on the other side and added by
broadcast: concatenated instead, a builder would fold one copy of them per window.

Pad names all axes: given some of them only, ONNX Runtime 1.32 moves a Transpose across it and fails ("indices element out of data
bounds").

BEFORE defines query, key and padded_v, each (windows, heads, N, D + R); AFTER takes `attended_wide`, of the same shape.
"""

BEFORE = """
  width_q = Shape <start: int = 3, end: int = 4> (q)
  width_codes = Shape <start: int = 2, end: int = 3> (pos_q)
  last_axis = Constant <value_ints: ints = [3]> ()
  none2 = Constant <value_ints: ints = [0, 0]> ()
  none3 = Constant <value_ints: ints = [0, 0, 0]> ()
  none7 = Constant <value_ints: ints = [0, 0, 0, 0, 0, 0, 0]> ()
  after = Concat <axis: int = 0> (none7, width_codes)
  before = Concat <axis: int = 0> (none2, width_q, none3)
  head_q = Transpose <perm: ints = [0, 2, 1, 3]> (q)
  head_k = Transpose <perm: ints = [0, 2, 1, 3]> (k)
  head_v = Transpose <perm: ints = [0, 2, 1, 3]> (v)
  padded_q = Pad (head_q, after)
  padded_k = Pad (head_k, after)
  padded_v = Pad (head_v, after)
  codes_q = Pad (pos_q, before)
  codes_k = Pad (pos_k, before)
  query = Add (padded_q, codes_q)
  key = Add (padded_k, codes_k)
"""

AFTER = """
  attended_heads = Slice (attended_wide, zero, width_q, last_axis)
  attended_tokens = Transpose <perm: ints = [0, 2, 1, 3]> (attended_heads)
  attended_shape = Concat <axis: int = 0> (window_count, tokens, rest)
  attended = Reshape (attended_tokens, attended_shape)
"""
