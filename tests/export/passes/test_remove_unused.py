import numpy as np

from flashrib.export.passes.remove_unused import remove_unused
from tests.export.graphs import graph, operators


def test_what_no_output_needs_goes() -> None:
    a = np.ones(3, np.float32)
    model = graph("g (float[3] x) => (float[3] y) <float[3] d> { d = Exp(x) e = Add(d, b) y = Add(x, a) }", a=a, b=a)
    remove_unused(model)
    assert operators(model) == ["Add"]
    assert [tensor.name for tensor in model.graph.initializer] == ["a"]
    assert not model.graph.value_info


def test_the_order_stays() -> None:
    model = graph("g (float[3] x) => (float[3] y) { a = Exp(x) b = Neg(a) y = Abs(b) }")
    remove_unused(model)
    assert operators(model) == ["Exp", "Neg", "Abs"]
