"""Body for ONNX Runtime: its fused `MultiHeadAttention`, memory linear in the window, v as narrow as it is.

The position codes are concatenated to every head of q and k; ONNX Runtime takes q and k wider than v. `flashrib.runtime` knows bodies that
are CORE_COMPLETED by the name `completed_v`.
"""

OPSETS = {"com.microsoft": 1}

_ATTENTION = """
  codes_q = Transpose <perm: ints = [1, 0, 2]> ({pos_q})
  codes_k = Transpose <perm: ints = [1, 0, 2]> ({pos_k})
  code_shape = Concat <axis: int = 0> (window_count, one, one, one)
  every_q = Expand (codes_q, code_shape)
  every_k = Expand (codes_k, code_shape)
  wide_q = Concat <axis: int = 3> (q, every_q)
  wide_k = Concat <axis: int = 3> (k, every_k)
  token_shape = Concat <axis: int = 0> (window_count, tokens, rest)
  query = Reshape (wide_q, token_shape)
  key = Reshape (wide_k, token_shape)
  value = Reshape ({v}, token_shape)
  {out} = com.microsoft.MultiHeadAttention <num_heads: int = @num_heads, scale: float = 1.0> (query, key, value)
"""

# On GPUs ONNX Runtime has fused kernels for heads of multiples of 8 channels alone; of others it stores all scores, whose number leaves
# its integers for large windows (an illegal memory access). So heads are completed by zeros, which changes no score and no result.
_COMPLETE = """
  eight = Constant <value_ints: ints = [8]> ()
  none5 = Constant <value_ints: ints = [0, 0, 0, 0, 0]> ()
  none7 = Constant <value_ints: ints = [0, 0, 0, 0, 0, 0, 0]> ()
  rank = Shape <start: int = 2, end: int = 3> (pos_q)
  width = Add (head_size, rank)
  width_back = Neg (width)
  width_missing = Mod (width_back, eight)
  head_size_back = Neg (head_size)
  head_size_missing = Mod (head_size_back, eight)
  code_pads = Concat <axis: int = 0> (none5, width_missing)
  value_pads = Concat <axis: int = 0> (none7, head_size_missing)
  completed_pos_q = Pad (pos_q, code_pads)
  completed_pos_k = Pad (pos_k, code_pads)
  completed_v = Pad (v, value_pads)
"""

_CUT = """
  attended_shape = Concat <axis: int = 0> (window_count, tokens, heads1, rest)
  attended_heads = Reshape (attended_wide, attended_shape)
  attended = Slice (attended_heads, zero, head_size, three)
"""

CORE_COMPLETED = (
    _COMPLETE
    + _ATTENTION.format(pos_q="completed_pos_q", pos_k="completed_pos_k", v="completed_v", out="attended_wide")
    + _CUT
)

CORE = _ATTENTION.format(pos_q="pos_q", pos_k="pos_k", v="v", out="attended")
