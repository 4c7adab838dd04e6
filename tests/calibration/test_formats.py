import numpy as np
import pytest

from flashrib.calibration.formats import FORMATS

INT8, FP8 = FORMATS["int8"], FORMATS["fp8"]


def test_int8_is_symmetric_and_bounded() -> None:
    values = np.array([-9.0, -1.27, -0.014, 0.0, 0.016, 1.0, 9.0])
    expected = [-1.27, -1.27, -0.01, 0.0, 0.02, 1.0, 1.27]
    assert INT8.rounded(values, 0.01) == pytest.approx(np.array(expected), abs=1e-6)


def test_fp8_is_e4m3() -> None:
    """Three bits of mantissa, ends at 448, smallest step 2^-9."""
    values = np.array([1.0, 1.06, 1.07, 17.0, 460.0, -1e9, 2.0**-9, 2.0**-11])
    expected = [1.0, 1.0, 1.125, 16.0, 448.0, -448.0, 2.0**-9, 0.0]
    assert FP8.rounded(values, 1.0).tolist() == expected


@pytest.mark.parametrize("kind", FORMATS.values(), ids=FORMATS)
def test_the_largest_value_is_kept(kind: object) -> None:
    assert isinstance(kind, type(INT8))
    weight = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    scale = kind.weight_scale(weight, 1)
    assert scale.shape == ((5,) if kind.name == "int8" else ())
    largest = np.abs(weight).max(0 if kind.name == "int8" else None)
    assert np.abs(kind.rounded(weight, scale)).max(0 if kind.name == "int8" else None) == pytest.approx(
        largest, rel=1e-6
    )


def test_an_empty_range_has_a_scale() -> None:
    assert INT8.scale_of(0.0) == 1.0
    assert INT8.weight_scale(np.zeros((3, 2)), 1).tolist() == [1.0, 1.0]
