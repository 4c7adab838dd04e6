"""The measure of an error that all checks share."""

import math

import numpy as np
import pytest

from flashrib.runtime.quality.rms import rms, rms_ratio


def test_against_the_formula() -> None:
    expected, found = np.array([3.0, 4.0], np.float32), np.array([3.0, 4.5], np.float32)
    assert rms(expected) == pytest.approx(math.sqrt(12.5))
    assert rms_ratio(expected, found, 0.1) == pytest.approx(math.sqrt(0.125) / math.sqrt(12.5))


def test_a_reference_of_zeros_counts_as_the_least() -> None:
    assert rms_ratio(np.zeros(4), np.full(4, 0.02), 0.1) == pytest.approx(0.2)


def test_squares_do_not_overflow() -> None:
    assert rms(np.full(3, 60000, np.float16)) == pytest.approx(60000, rel=1e-3)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite(value: float) -> None:
    assert rms_ratio(np.ones(2), np.array([1.0, value]), 0.1) == math.inf
