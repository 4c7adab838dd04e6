import numpy as np
import pytest

from flashrib.export.passes.fold_gather import fold_gather
from tests.export.graphs import graph, operators, run

TEXT = "g (float[2, 4] x) => (float[2, M] y) { g = Gather<axis = 1>(x, i) y = Neg(g) }"


@pytest.mark.parametrize(
    ("indices", "left"), [([0, 1, 2, 3], ["Neg"]), ([0, 1, 2], ["Gather", "Neg"]), ([0, 1, 3, 2], ["Gather", "Neg"])]
)
def test_only_the_identity_goes(indices: list[int], left: list[str]) -> None:
    model = graph(TEXT, i=np.array(indices))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    fold_gather(model)
    assert operators(model) == left
    np.testing.assert_array_equal(run(model, x=x), -x[:, indices])


def test_a_dynamic_length_is_left_alone() -> None:
    model = graph(TEXT.replace("4]", "N]", 1), i=np.arange(4))
    fold_gather(model)
    assert operators(model) == ["Gather", "Neg"]


def test_two_in_a_row() -> None:
    text = "g (float[2, 4] x) => (float[2, 4] y) <float[2, 4] h> { h = Gather<axis = 0>(x, i) g = Gather<axis = 1>(h, j) y = Neg(g) }"
    model = graph(text, i=np.arange(2), j=np.arange(4))
    fold_gather(model)
    assert operators(model) == ["Neg"]
    assert list(model.graph.node[0].input) == ["x"]
