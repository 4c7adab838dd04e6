"""Any part of the noise of a result is the same noise, and it is the one that the documentation states."""

import numpy as np
import pytest

from flashrib.runtime.errors import UsageError
from flashrib.runtime.noise import NoiseMap, repeated_noise


def test_parts_are_cut_from_one_map() -> None:
    noise = NoiseMap(3)
    whole = noise.part(slice(0, 192), slice(0, 128))
    for top, bottom, left, right in ((0, 64, 0, 64), (64, 192, 64, 128), (5, 70, 3, 4), (127, 129, 60, 70)):
        part = noise.part(slice(top, bottom), slice(left, right))
        assert np.array_equal(part, whole[:, :, 4 * top : 4 * bottom, 4 * left : 4 * right])


def test_the_stated_generator() -> None:
    random = np.random.Generator(np.random.Philox(key=7, counter=[0, 0, 1, 2]))
    wanted = random.standard_normal((3, 256, 256), dtype=np.float32)
    assert np.array_equal(NoiseMap(7).part(slice(64, 128), slice(128, 192))[0], wanted)


def test_normal_and_different_for_every_seed() -> None:
    a, b = (NoiseMap(seed).part(slice(0, 128), slice(0, 128)) for seed in (0, 1))
    assert abs(a.mean()) < 0.01
    assert abs(a.std() - 1) < 0.01
    assert abs((a * b).mean()) < 0.01


def test_noise_inside_repeats_the_first_square() -> None:
    whole = NoiseMap(7, 2).part(slice(0, 16), slice(0, 16))
    repeated = repeated_noise(7, 2, 16, height=20, width=16)
    assert repeated.shape == (1, 3, 64, 32)
    assert np.array_equal(repeated[:, :, :32], whole)
    assert np.array_equal(repeated[:, :, 32:], whole)


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_seeds_out_of_range(seed: int) -> None:
    with pytest.raises(UsageError, match=f"seed {seed} is out of range"):
        NoiseMap(seed)
