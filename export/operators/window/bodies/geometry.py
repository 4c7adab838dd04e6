"""Text shared by all bodies of `flashrib::WindowAttention`: feature map -> windows before the attention itself, and back after it.

PARTITION defines q, k and v, each (windows, N, heads, D), and the sizes that MERGE needs; MERGE takes `attended`, (windows, N, heads*D).
Where no layer of a model is shifted, padding to whole windows is one Pad, and nothing for a static size of whole windows;
where one is, padding and roll together are a Gather along the rows and one along the columns. The head size is computed from the
channels and not left to Reshape: TensorRT-RTX takes dynamic sizes only where it knows the head size.
"""

SIZES = """
  window = Constant <value_ints: ints = @window> ()
  heads = Constant <value_int: int = @num_heads> ()
  zero = Constant <value_ints: ints = [0]> ()
  one = Constant <value_ints: ints = [1]> ()
  two = Constant <value_ints: ints = [2]> ()
  three = Constant <value_ints: ints = [3]> ()
  rest = Constant <value_ints: ints = [-1]> ()
  origin = Constant <value_ints: ints = [0, 0]> ()
  axes = Constant <value_ints: ints = [1, 2]> ()
  heads1 = Reshape (heads, one)
  wh = Slice (window, zero, one)
  ww = Slice (window, one, two)
  tokens = Mul (wh, ww)
  batch = Shape <start: int = 0, end: int = 1> (qkv)
  size = Shape <start: int = 1, end: int = 3> (qkv)
  negative = Neg (size)
  missing = Mod (negative, window)
  whole = Add (size, missing)
  grid = Div (whole, window)
  windows = Concat <axis: int = 0> (batch, grid)
  window_count = ReduceProd <keepdims: int = 1> (windows)
  channels = Shape <start: int = 3, end: int = 4> (qkv)
  head_channels = Mul (three, heads1)
  head_size = Div (channels, head_channels)
"""

PAD = """
  pads = Concat <axis: int = 0> (origin, missing)
  completed = Pad <mode: string = "reflect"> (qkv, pads, , axes)
"""

# A feature map of a static size that already consists of whole windows.
WHOLE = """
  completed = Identity (qkv)
"""

WHOLE_CROP = """
  out = Identity (out_whole)
"""

# Position p of the padded, rolled feature map holds reflect((p + shift) mod whole), reflect(i) = min(i, 2 (size - 1) - i).
SOURCES = """
  shift = Constant <value_ints: ints = @shift> ()
  scalar = Constant <value_ints: ints = [0]> ()
  zero0 = Squeeze (zero, scalar)
  one0 = Squeeze (one, scalar)
  ones = Constant <value_ints: ints = [1, 1]> ()
  last = Sub (size, ones)
  mirror = Add (last, last)
  whole_h = Slice (whole, zero, one)
  whole_h0 = Squeeze (whole_h, scalar)
  shift_h = Slice (shift, zero, one)
  mirror_h = Slice (mirror, zero, one)
  line_h = Range (zero0, whole_h0, one0)
  moved_h = Add (line_h, shift_h)
  rolled_h = Mod (moved_h, whole_h)
  back_h = Sub (mirror_h, rolled_h)
  source_h = Min (rolled_h, back_h)
  whole_w = Slice (whole, one, two)
  whole_w0 = Squeeze (whole_w, scalar)
  shift_w = Slice (shift, one, two)
  mirror_w = Slice (mirror, one, two)
  line_w = Range (zero0, whole_w0, one0)
  moved_w = Add (line_w, shift_w)
  rolled_w = Mod (moved_w, whole_w)
  back_w = Sub (mirror_w, rolled_w)
  source_w = Min (rolled_w, back_w)
"""

PAD_SHIFTED = (
    SOURCES
    + """
  completed_h = Gather <axis: int = 1> (qkv, source_h)
  completed = Gather <axis: int = 2> (completed_h, source_w)
"""
)

PARTITION = """
  rows = Slice (grid, zero, one)
  columns = Slice (grid, one, two)
  grid_shape = Concat <axis: int = 0> (batch, rows, wh, columns, ww, three, heads1, head_size)
  gridded = Reshape (completed, grid_shape)
  parted = Transpose <perm: ints = [5, 0, 1, 3, 2, 4, 6, 7]> (gridded)
  parted_shape = Concat <axis: int = 0> (three, window_count, tokens, heads1, head_size)
  stacked = Reshape (parted, parted_shape)
  q1, k1, v1 = Split <axis: int = 0, num_outputs: int = 3> (stacked)
  q = Squeeze (q1, zero)
  k = Squeeze (k1, zero)
  v = Squeeze (v1, zero)
"""

MERGE = """
  out_grid_shape = Concat <axis: int = 0> (batch, rows, columns, wh, ww, rest)
  out_gridded = Reshape (attended, out_grid_shape)
  out_parted = Transpose <perm: ints = [0, 1, 3, 2, 4, 5]> (out_gridded)
  out_shape = Concat <axis: int = 0> (batch, whole, rest)
  out_whole = Reshape (out_parted, out_shape)
"""

CROP = """
  out = Slice (out_whole, origin, size, axes)
"""

# Row y of the feature map lies at (y - shift) mod whole of the rolled one.
CROP_SHIFTED = """
  size_h = Slice (size, zero, one)
  size_h0 = Squeeze (size_h, scalar)
  out_line_h = Range (zero0, size_h0, one0)
  out_moved_h = Sub (out_line_h, shift_h)
  out_source_h = Mod (out_moved_h, whole_h)
  size_w = Slice (size, one, two)
  size_w0 = Squeeze (size_w, scalar)
  out_line_w = Range (zero0, size_w0, one0)
  out_moved_w = Sub (out_line_w, shift_w)
  out_source_w = Mod (out_moved_w, whole_w)
  out_h = Gather <axis: int = 1> (out_whole, out_source_h)
  out = Gather <axis: int = 2> (out_h, out_source_w)
"""

# The way there and back as one Gather of pixels each, shift and padding included, after SOURCES. On GPUs ONNX Runtime's reflecting Pad
# and its transpositions of eight axes take much longer than this: docs/onnxruntime.md.
GATHER_WINDOWS = """
  rows = Slice (grid, zero, one)
  columns = Slice (grid, one, two)
  size_w1 = Slice (size, one, two)
  row_shape = Concat <axis: int = 0> (rows, one, wh, one)
  column_shape = Concat <axis: int = 0> (one, columns, one, ww)
  source_rows = Reshape (source_h, row_shape)
  source_columns = Reshape (source_w, column_shape)
  row_starts = Mul (source_rows, size_w1)
  places = Add (row_starts, source_columns)
  flat_places = Reshape (places, rest)
  pixel_shape = Concat <axis: int = 0> (batch, rest, channels)
  pixels = Reshape (qkv, pixel_shape)
  gathered = Gather <axis: int = 1> (pixels, flat_places)
  parted_shape = Concat <axis: int = 0> (window_count, tokens, three, heads1, head_size)
  stacked = Reshape (gathered, parted_shape)
  q1, k1, v1 = Split <axis: int = 2, num_outputs: int = 3> (stacked)
  q = Squeeze (q1, two)
  k = Squeeze (k1, two)
  v = Squeeze (v1, two)
"""

# Pixel (y, x) of the feature map is token ((y - shift) mod whole) of the windows, row by row of windows, row by row within.
GATHER_PIXELS = """
  size_h1 = Slice (size, zero, one)
  size_h0 = Squeeze (size_h1, scalar)
  out_line_h = Range (zero0, size_h0, one0)
  out_back_h = Sub (out_line_h, shift_h)
  out_moved_h = Mod (out_back_h, whole_h)
  size_w0 = Squeeze (size_w1, scalar)
  out_line_w = Range (zero0, size_w0, one0)
  out_back_w = Sub (out_line_w, shift_w)
  out_moved_w = Mod (out_back_w, whole_w)
  window_rows = Div (out_moved_h, wh)
  inside_rows = Mod (out_moved_h, wh)
  window_columns = Div (out_moved_w, ww)
  inside_columns = Mod (out_moved_w, ww)
  row_tokens = Mul (columns, tokens)
  row_window_parts = Mul (window_rows, row_tokens)
  row_inside_parts = Mul (inside_rows, ww)
  row_parts = Add (row_window_parts, row_inside_parts)
  column_window_parts = Mul (window_columns, tokens)
  column_parts = Add (column_window_parts, inside_columns)
  tall_parts = Unsqueeze (row_parts, one)
  token_places = Add (tall_parts, column_parts)
  flat_token_places = Reshape (token_places, rest)
  out_channels = Mul (heads1, head_size)
  token_list_shape = Concat <axis: int = 0> (batch, rest, out_channels)
  token_list = Reshape (attended, token_list_shape)
  picked = Gather <axis: int = 1> (token_list, flat_token_places)
  out_shape = Concat <axis: int = 0> (batch, size, rest)
  out = Reshape (picked, out_shape)
"""
