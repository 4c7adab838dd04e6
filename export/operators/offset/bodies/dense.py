"""Body of standard operators with all scores: memory quadratic in the tokens, for builders that fuse it and as the check of the other.

Which distances a head keeps is a small table (heads, N+1), its last column for the class token's row and column, which keep all; the
mask is one Gather from it. It depends on no input but constants, so that a runtime makes it once.
"""

from flashrib.export.operators.offset.bodies.tokens import AFTER, BEFORE, SIZES

_MASK = """
  start0 = Squeeze (zero)
  one0 = Squeeze (one)
  patches0 = Squeeze (patches)
  tokens0 = Squeeze (tokens)
  steps = Cast <to: int = 7> (offsets)
  steps3 = Unsqueeze (steps, two)
  possible = Range (start0, patches0, one0)
  same = Equal (steps3, possible)
  same_number = Cast <to: int = 1> (same)
  kept_number = ReduceMax <keepdims: int = 0> (same_number, one)
  all_pads = Constant <value_ints: ints = [0, 0, 0, 1]> ()
  always = Constant <value: tensor = float {1.0}> ()
  table = Pad (kept_number, all_pads, always)
  place = Range (start0, tokens0, one0)
  place_row = Unsqueeze (place, zero)
  place_column = Unsqueeze (place, one)
  difference = Sub (place_row, place_column)
  distance = Abs (difference)
  product = Mul (place_row, place_column)
  with_class = Equal (product, zero)
  entry = Where (with_class, patches, distance)
  kept_all = Gather <axis: int = 1> (table, entry)
  kept = Cast <to: int = 9> (kept_all)
"""

_CORE = """
  scores_low = MatMul (q, k_columns)
  scores = Cast <to: int = 1> (scores_low)
  filler = Constant <value: tensor = float {%s}> ()
  masked = Where (kept, scores, filler)
  weights = Softmax <axis: int = -1> (masked)
  weights_low = CastLike (weights, v)
  heads_out = MatMul (weights_low, v)
"""

FILLER = {"neg_inf": "-inf", "zero_logit": "0.0"}


def text(mask_mode: str) -> str:
    """Nodes of the body, in braces, for "neg_inf" or "zero_logit"."""
    return "".join(("{", SIZES, _MASK, BEFORE.format(qkv="qkv"), _CORE % FILLER[mask_mode], AFTER, "}"))
