"""Body of standard operators in memory linear in the tokens: a Loop over slots, +o and -o of each head, with the softmax carried along.

A slot takes one row of k and of v for each query; state of the loop are the maximum, the sum and the weighted values, all in float32.
"""

from flashrib.export.operators.offset.bodies.tokens import AFTER, BEFORE, SIZES

# The class token's query sees all. Patch queries begin with the class token's key.
_START = (
    """
  wide = Cast <to: int = 1> (qkv)
"""
    + BEFORE.format(qkv="wide")
    + """
  limit = Constant <value_ints: ints = [9223372036854775807]> ()
  q_class = Slice (q, zero, one, two)
  scores_class = MatMul (q_class, k_columns)
  weights_class = Softmax <axis: int = -1> (scores_class)
  out_class = MatMul (weights_class, v)
  q_patch = Slice (q, one, limit, two)
  k_patch = Slice (k, one, limit, two)
  v_patch = Slice (v, one, limit, two)
  k_class = Slice (k_columns, zero, one, three)
  v_class = Slice (v, zero, one, two)
  flat_shape = Concat <axis: int = 0> (batch, rest, head_size)
  k_flat = Reshape (k_patch, flat_shape)
  v_flat = Reshape (v_patch, flat_shape)
  row_shape = Concat <axis: int = 0> (batch, heads1, patches, head_size)
  s_first = MatMul (q_patch, k_class)
"""
)

# Keys of every slot: (slots, heads, N), beyond the ends where there is none; -0 is none, since +0 is there already.
_SLOTS = """
  steps = Cast <to: int = 7> (offsets)
  back = Neg (steps)
  nothing = Equal (steps, zero)
  before = Where (nothing, patches, back)
  both = Concat <axis: int = 1> (steps, before)
  by_slot = Transpose <perm: ints = [1, 0]> (both)
  steps3 = Unsqueeze (by_slot, two)
  start0 = Squeeze (zero)
  one0 = Squeeze (one)
  patches0 = Squeeze (patches)
  places = Range (start0, patches0, one0)
  keys = Add (places, steps3)
  below = Less (keys, zero)
  inside_above = Less (keys, patches)
  inside_below = Not (below)
  inside = And (inside_above, inside_below)
  inside4 = Unsqueeze (inside, rest)
  last = Sub (patches, one)
  clipped_above = Min (keys, last)
  clipped = Max (clipped_above, zero)
  head_numbers = Range (start0, heads, one0)
  head_starts = Mul (head_numbers, patches)
  head_starts2 = Unsqueeze (head_starts, one)
  rows3 = Add (clipped, head_starts2)
  slots = Shape <start: int = 0, end: int = 1> (by_slot)
  rows_shape = Concat <axis: int = 0> (slots, rest)
  rows = Reshape (rows3, rows_shape)
  slots0 = Squeeze (slots)
  more = Constant <value: tensor = bool[1] {1}> ()
  more0 = Squeeze (more)
  unseen = Constant <value: tensor = float {-inf}> ()
  none = Constant <value: tensor = float {0.0}> ()
"""

_FIRST = {
    "neg_inf": """
  m_first = Identity (s_first)
  l_first = Exp (none_like)
  acc_first = Mul (l_first, v_class)
""",
    "zero_logit": """
  m_first = Max (s_first, none)
  m_first_back = Neg (m_first)
  rest_first = Exp (m_first_back)
  s_first_less = Sub (s_first, m_first)
  e_first = Exp (s_first_less)
  w_first = Sub (e_first, rest_first)
  tokens_float = Cast <to: int = 1> (tokens)
  l_others = Mul (rest_first, tokens_float)
  l_first = Add (w_first, l_others)
  sum_v = ReduceSum <keepdims: int = 1> (v, two)
  acc_own = Mul (w_first, v_class)
  acc_others = Mul (rest_first, sum_v)
  acc_first = Add (acc_own, acc_others)
""",
}

_WEIGHT = {
    "neg_inf": """
    w = Identity (e)""",
    "zero_logit": """
    m_back = Neg (m_next)
    e_rest = Exp (m_back)
    w_kept = Sub (e, e_rest)
    w = Where (kept, w_kept, none)""",
}

_LOOP = """
  m_end, l_end, acc_end = Loop (slots0, more0, m_first, l_first, acc_first) <body = slot_of_all (
      int64 i, bool go, float[b, h, n, one_m] m, float[b, h, n, one_l] l, float[b, h, n, d] acc
    ) => (bool go_on, float[b, h, n, one_m] m_out, float[b, h, n, one_l] l_out, float[b, h, n, d] acc_out) {{
    go_on = Identity (go)
    slot_rows = Gather <axis: int = 0> (rows, i)
    kept = Gather <axis: int = 0> (inside4, i)
    k_rows = Gather <axis: int = 1> (k_flat, slot_rows)
    v_rows = Gather <axis: int = 1> (v_flat, slot_rows)
    k_slot = Reshape (k_rows, row_shape)
    v_slot = Reshape (v_rows, row_shape)
    products = Mul (q_patch, k_slot)
    s_all = ReduceSum <keepdims: int = 1> (products, rest)
    s = Where (kept, s_all, unseen)
    m_next = Max (m, s)
    m_change = Sub (m, m_next)
    decay = Exp (m_change)
    s_less = Sub (s, m_next)
    e = Exp (s_less){weight}
    l_decayed = Mul (l, decay)
    l_out = Add (l_decayed, w)
    acc_decayed = Mul (acc, decay)
    added = Mul (w, v_slot)
    acc_out = Add (acc_decayed, added)
    m_out = Identity (m_next)
  }}>
  out_patch = Div (acc_end, l_end)
  heads_out = Concat <axis: int = 2> (out_class, out_patch)
"""


def text(mask_mode: str) -> str:
    """Nodes of the body, in braces, for "neg_inf" or "zero_logit"."""
    first = _FIRST[mask_mode].replace("Exp (none_like)", "Exp (zeros)")
    if mask_mode == "neg_inf":
        first = "\n  zeros = Sub (s_first, s_first)" + first
    return "".join(("{", SIZES, _START, _SLOTS, first, _LOOP.format(weight=_WEIGHT[mask_mode]), AFTER, "}"))
