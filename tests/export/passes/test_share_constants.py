import numpy as np

from flashrib.export.passes.share_constants import share_constants
from tests.export.graphs import graph, run

ONES = np.ones(3, np.float32)


def test_equal_ones_are_stored_once() -> None:
    model = graph(
        "g (float[3] x) => (float[3] y) { s = Add(x, a) t = Mul(s, b) y = Sub(t, c) }", a=ONES, b=ONES, c=2 * ONES
    )
    x = np.arange(3, dtype=np.float32)
    before = run(model, x=x)
    share_constants(model)
    assert [tensor.name for tensor in model.graph.initializer] == ["a", "c"]
    np.testing.assert_array_equal(run(model, x=x), before)


def test_another_type_or_shape_is_another_constant() -> None:
    constants = {"a": ONES, "b": np.ones((3, 1), np.float32), "c": ONES.view(np.int32)}
    model = graph(
        "g (float[3] x) => (float[3, 3] y) { s = Add(x, a) d = Cast<to = 1>(c) t = Add(s, d) y = Mul(t, b) }",
        **constants,
    )
    share_constants(model)
    assert len(model.graph.initializer) == 3
