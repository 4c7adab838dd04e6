"""Text shared by the bodies of `flashrib::OffsetAttention`: qkv -> q, k, v of every head before, heads -> tokens after.

BEFORE defines q, k and v, (B, heads, N+1, D), from the value whose name it is formatted with; AFTER takes `heads_out` of that shape.
"""

SIZES = """
  heads = Constant <value_int: int = @num_heads> ()
  zero = Constant <value_ints: ints = [0]> ()
  one = Constant <value_ints: ints = [1]> ()
  two = Constant <value_ints: ints = [2]> ()
  three = Constant <value_ints: ints = [3]> ()
  rest = Constant <value_ints: ints = [-1]> ()
  heads1 = Reshape (heads, one)
  batch = Shape <start: int = 0, end: int = 1> (qkv)
  tokens = Shape <start: int = 1, end: int = 2> (qkv)
  channels = Shape <start: int = 2, end: int = 3> (qkv)
  patches = Sub (tokens, one)
  parts_heads = Mul (three, heads1)
  head_size = Div (channels, parts_heads)
"""

BEFORE = """
  split_shape = Concat <axis: int = 0> (batch, tokens, three, heads1, head_size)
  split = Reshape ({qkv}, split_shape)
  parted = Transpose <perm: ints = [2, 0, 3, 1, 4]> (split)
  ones = Constant <value_ints: ints = [1, 1, 1]> ()
  q1, k1, v1 = Split <axis: int = 0> (parted, ones)
  q = Squeeze (q1, zero)
  k = Squeeze (k1, zero)
  v = Squeeze (v1, zero)
  k_columns = Transpose <perm: ints = [0, 1, 3, 2]> (k)
"""

AFTER = """
  tokens_out = Transpose <perm: ints = [0, 2, 1, 3]> (heads_out)
  out_shape = Concat <axis: int = 0> (batch, tokens, rest)
  joined = Reshape (tokens_out, out_shape)
  out = CastLike (joined, qkv)
"""
