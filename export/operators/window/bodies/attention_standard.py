"""Body in standard operators that every runtime has: two matmuls for the scores, Softmax, matmul; memory quadratic in the window."""

OPSETS: dict[str, int] = {}

CORE = """
  head_q = Transpose <perm: ints = [0, 2, 1, 3]> (q)
  head_k = Transpose <perm: ints = [0, 2, 3, 1]> (k)
  head_v = Transpose <perm: ints = [0, 2, 1, 3]> (v)
  codes_k = Transpose <perm: ints = [0, 2, 1]> (pos_k)
  content = MatMul (head_q, head_k)
  position = MatMul (pos_q, codes_k)
  scores = Add (content, position)
  weights = Softmax <axis: int = -1> (scores)
  attended_heads = MatMul (weights, head_v)
  attended_tokens = Transpose <perm: ints = [0, 2, 1, 3]> (attended_heads)
  attended_shape = Concat <axis: int = 0> (window_count, tokens, rest)
  attended = Reshape (attended_tokens, attended_shape)
"""
