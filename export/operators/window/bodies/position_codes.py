"""`flashrib::PositionCodes`: tables of rows and columns -> pos_q and pos_k; see `flashrib.model.rib.position_codes`.

Depends on constants alone: runtimes evaluate it once when they load the file, so the file holds the recipe and not 2*heads*N*R values.
"""

BODY = """
{
  first = Constant <value_ints: ints = [0]> ()
  second = Constant <value_ints: ints = [1]> ()
  row_terms = Unsqueeze (rows, second)
  column_terms = Unsqueeze (columns, first)
  terms = Add (row_terms, column_terms)
  hidden = Relu (terms)
  width = Shape <start: int = 2, end: int = 3> (hidden)
  every = Constant <value_ints: ints = [-1]> ()
  flat_shape = Concat <axis: int = 0> (every, width)
  tokens = Reshape (hidden, flat_shape)
  pos_q = MatMul (tokens, to_q)
  pos_k = MatMul (tokens, to_k)
}
"""
