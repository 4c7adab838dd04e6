import numpy as np
import pytest

from flashrib.calibration.formats import FORMATS
from flashrib.calibration.rounding import round_weight


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_errors_cancel(kind: object) -> None:
    """On inputs that vary together, the product is closer than with every weight rounded to the nearest."""
    assert isinstance(kind, type(FORMATS["int8"]))
    random = np.random.default_rng(0)
    rows = random.standard_normal((4000, 6)) @ random.standard_normal((6, 24)) + 0.05 * random.standard_normal(
        (4000, 24)
    )
    rows -= rows.mean(0)
    weight = random.standard_normal((24, 10))
    scale = kind.weight_scale(weight, 1)
    nearest = kind.rounded(weight, scale)
    ours = round_weight(weight, rows.T @ rows / len(rows), scale, kind)
    assert np.array_equal(kind.rounded(ours, scale), ours.astype(np.float32))  # on the grid
    error, plain = (np.square(rows @ (rounded - weight)).mean() for rounded in (ours, nearest))
    assert error < 0.5 * plain


def test_without_anything_seen_it_is_the_nearest() -> None:
    kind = FORMATS["int8"]
    weight = np.random.default_rng(0).standard_normal((5, 3))
    scale = kind.weight_scale(weight, 1)
    assert np.array_equal(round_weight(weight, np.zeros((5, 5)), scale, kind), kind.rounded(weight, scale))
