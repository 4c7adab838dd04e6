import numpy as np
import pytest

from flashrib.export.passes.fuse_split import fuse_split
from tests.export.graphs import graph, operators, run

TEXT = """g (float[2, 5] x) => (float[2, N] y) {{
  a = Slice(x, {a0}, {a1}, axis, step)
  b = Slice(x, {b0}, {b1}, axis, step)
  e = Neg(a)
  y = Concat<axis = 1>(b, e) }}"""
CONSTANTS = {
    name: np.array([value])
    for name, value in {"zero": 0, "two": 2, "three": 3, "five": 5, "axis": 1, "step": 1}.items()
}


@pytest.mark.parametrize(
    ("bounds", "fused"),
    [
        (("zero", "three", "three", "five"), True),
        (("three", "five", "zero", "three"), True),
        (("zero", "two", "three", "five"), False),
        (("zero", "three", "two", "five"), False),
    ],
    ids=["head first", "tail first", "gap", "overlap"],
)
def test_two_complementary_slices(bounds: tuple[str, ...], fused: bool) -> None:
    model = graph(TEXT.format(**dict(zip(("a0", "a1", "b0", "b1"), bounds, strict=True))), **CONSTANTS)
    x = np.arange(10, dtype=np.float32).reshape(2, 5)
    before = run(model, x=x)
    fuse_split(model)
    assert operators(model) == (["Split", "Neg", "Concat"] if fused else ["Slice", "Slice", "Neg", "Concat"])
    np.testing.assert_array_equal(run(model, x=x), before)
