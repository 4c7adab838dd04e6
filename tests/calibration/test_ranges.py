import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.calibration.formats import FORMATS
from flashrib.calibration.ranges import METHODS, clip_at

INT8 = FORMATS["int8"]


def histogram(values: NDArray[np.float64]) -> tuple[NDArray[np.int64], float]:
    reach = float(np.abs(values).max())
    return np.histogram(np.abs(values), 2048, (0.0, reach))[0], reach


def normal_with(outliers: list[float], count: int = 200_000) -> NDArray[np.float64]:
    return np.concatenate([np.random.default_rng(0).standard_normal(count), outliers])


def test_minmax_clips_nothing() -> None:
    counts, reach = histogram(normal_with([30.0]))
    assert clip_at(counts, reach, "minmax", INT8) == 30.0


def test_percentile() -> None:
    values = normal_with([30.0])
    counts, reach = histogram(values)
    end = clip_at(counts, reach, "percentile", INT8)
    assert np.mean(np.abs(values) <= end) == pytest.approx(0.9999, abs=2e-5)


def test_entropy_leaves_single_outliers_out() -> None:
    counts, reach = histogram(normal_with([30.0, -28.0]))
    assert 3 < clip_at(counts, reach, "entropy", INT8) < 20


def test_mse_is_the_least_error_of_all_ends() -> None:
    values = normal_with([8.0] * 3)
    counts, reach = histogram(values)
    end = clip_at(counts, reach, "mse", INT8)
    ends = np.linspace(0.25, 1, 40) * reach
    errors = [np.square(INT8.rounded(values, INT8.scale_of(e)) - values).mean() for e in (end, *ends)]
    assert errors[0] <= min(errors[1:]) * 1.02
    assert end < 0.95 * reach


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_zeros(method: str) -> None:
    assert clip_at(np.array([5] + [0] * 2047), 0.0, method, INT8) == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_never_beyond_what_was_seen(method: str) -> None:
    counts, reach = histogram(np.random.default_rng(1).uniform(-2, 2, 5000))
    assert 1.5 < clip_at(counts, reach, method, INT8) <= reach
