"""Body for ONNX Runtime: its fused `MultiHeadAttention`, memory linear in the window, v as narrow as it is.

The position codes are concatenated to every head of q and k; ONNX Runtime takes q and k wider than v.
"""

OPSETS = {"com.microsoft": 1}

CORE = """
  codes_q = Transpose <perm: ints = [1, 0, 2]> (pos_q)
  codes_k = Transpose <perm: ints = [1, 0, 2]> (pos_k)
  code_shape = Concat <axis: int = 0> (window_count, one, one, one)
  every_q = Expand (codes_q, code_shape)
  every_k = Expand (codes_k, code_shape)
  wide_q = Concat <axis: int = 3> (q, every_q)
  wide_k = Concat <axis: int = 3> (k, every_k)
  token_shape = Concat <axis: int = 0> (window_count, tokens, rest)
  query = Reshape (wide_q, token_shape)
  key = Reshape (wide_k, token_shape)
  value = Reshape (v, token_shape)
  attended = com.microsoft.MultiHeadAttention <num_heads: int = @num_heads, scale: float = 1.0> (query, key, value)
"""
