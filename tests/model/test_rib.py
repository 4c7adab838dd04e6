"""Coordinates, position codes and ESC's symmetric kernel against the official tables."""

import pytest
import torch
from torch import Tensor

from flashrib.model.architectures.esc.network import geometric_ensemble
from flashrib.model.rib import coordinate_features, position_codes
from tests.official import load_vector, max_abs, seeded

# The official table takes its sines over vectors of another length, and vectorised sines may differ in the last bit.
ONE_ULP = 2**-24


def features(rows: int, columns: int) -> Tensor:
    """The table (N, 2 + 4L) of a window that `model.rib` never builds: X in the even columns, Y in the odd ones, tokens row-major."""
    x = coordinate_features(columns, 10).expand(rows, -1, -1)
    y = coordinate_features(rows, 10)[:, None, :].expand(-1, columns, -1)
    return torch.stack([x, y], dim=-1).reshape(rows * columns, -1)


@pytest.mark.parametrize(
    ("key", "rows", "columns"),
    [(str(side), side, side) for side in (4, 5, 8, 12, 16, 48)] + [("(4,6)", 4, 6)],
)
def test_coordinates_of_whole_windows(key: str, rows: int, columns: int) -> None:
    wanted = load_vector("rib_coords").tensors[f"coords.{key}"]
    assert max_abs(features(rows, columns), wanted) <= ONE_ULP


@pytest.mark.parametrize("side", [32, 64, 96])
def test_coordinates_of_the_first_row_and_column(side: int) -> None:
    tensors = load_vector("rib_coords").tensors
    table = features(side, side).reshape(side, side, -1)
    assert max_abs(table[0], tensors[f"coords_row0.{side}"]) <= ONE_ULP
    assert max_abs(table[:, 0], tensors[f"coords_col0.{side}"]) <= ONE_ULP


def test_no_octaves_leave_the_coordinate_alone() -> None:
    assert coordinate_features(4, 0).tolist() == [[-0.75], [-0.25], [0.25], [0.75]]


@pytest.mark.parametrize(("rows", "columns"), [(4, 6), (8, 8), (1, 5)])
def test_position_codes_are_the_mlp_of_the_features(rows: int, columns: int) -> None:
    heads, hidden, rank = 3, 8, 5
    random = seeded(rows * columns)
    weight = torch.randn(42, hidden, generator=random, dtype=torch.float64)
    bias = torch.randn(1, hidden, generator=random, dtype=torch.float64)
    to_q, to_k = torch.randn(2, heads, hidden, rank, generator=random, dtype=torch.float64)
    z = torch.relu(features(rows, columns).double() @ weight + bias)
    row_terms = coordinate_features(rows, 10).double() @ weight[1::2] + bias
    column_terms = coordinate_features(columns, 10).double() @ weight[0::2]
    pos_q, pos_k = position_codes(row_terms, column_terms, to_q * rank**-0.5, to_k)
    assert pos_q.shape == (heads, rows * columns, rank)
    assert max_abs(pos_q, z @ to_q * rank**-0.5) <= 1e-12
    assert max_abs(pos_k, z @ to_k) <= 1e-12


def test_geometric_ensemble_is_the_official_one_and_a_projection() -> None:
    tensors = load_vector("escrib_geo_ensemble").tensors
    once = geometric_ensemble(tensors["input"])
    assert max_abs(once, tensors["output"]) <= 1e-8
    assert max_abs(geometric_ensemble(once), once) <= 1e-8
    for symmetric in (once.flip(-1), once.flip(-2), once.transpose(-1, -2)):
        assert max_abs(symmetric, once) <= 1e-8
