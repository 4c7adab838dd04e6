"""`imresize` against MATLAB's formulas written out by hand, and against files that MATLAB made."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime.errors import UsageError
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.imresize import Border, contributions, imresize

DATA = Path(__file__).parents[4] / "shared" / "data"


def keys(x: float) -> float:
    """Keys 1981, equation 15 with a = -1/2."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def resize_line(line: list[float], target: int, scale: float, border: Border) -> list[float]:
    """One line, sample by sample, with MATLAB's coordinates counted from 1."""
    length = len(line)
    result = []
    for x in range(1, target + 1):
        u = x / scale + 0.5 * (1 - 1 / scale)
        reach = 4 / min(scale, 1)
        total = weights = 0.0
        for position in range(math.floor(u - reach), math.ceil(u + reach) + 1):
            weight = keys((u - position) * min(scale, 1))
            if border == "mirror":
                index = (position - 1) % (2 * length)
                index = index if index < length else 2 * length - 1 - index
            else:
                index = min(max(position, 1), length) - 1
            total += weight * line[index]
            weights += weight
        result.append(total / weights)
    return result


@pytest.mark.parametrize("border", ["mirror", "repeat"])
@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        pytest.param((7, 9), 0.5, id="half-odd"),
        pytest.param((8, 12), 0.25, id="quarter"),
        pytest.param((10, 7), 1 / 3, id="third"),
        pytest.param((5, 6), 2, id="double"),
        pytest.param((3, 4), 4, id="quadruple"),
        pytest.param((1, 1), 3, id="one-pixel"),
        pytest.param((2, 3), 0.1, id="wider-than-the-picture"),
        pytest.param((70, 5), 1.7, id="many-blocks-of-rows"),
    ],
)
def test_equals_the_formula_sample_by_sample(shape: tuple[int, int], scale: float, border: Border) -> None:
    image = np.random.default_rng(1).normal(size=shape)
    target = (math.ceil(shape[0] * scale), math.ceil(shape[1] * scale))
    columns = np.array([resize_line(list(c), target[0], scale, border) for c in image.T]).T
    expected = np.array([resize_line(list(r), target[1], scale, border) for r in columns])
    np.testing.assert_allclose(imresize(image, scale, border=border), expected, rtol=0, atol=1e-13)


def test_weights_of_doubling_are_those_of_the_kernel() -> None:
    weights, indices = contributions(10, 20, 2)
    np.testing.assert_allclose(weights[9], [-0.0703125, 0.8671875, 0.2265625, -0.0234375], atol=1e-15)
    assert indices[9].tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("scale", [0.25, 0.5, 1, 2, 3])
def test_a_constant_stays_exactly_constant(scale: float) -> None:
    image = np.full((12, 8, 3), 137, np.uint8)
    assert np.array_equal(imresize(image, scale), np.full((int(12 * scale), int(8 * scale), 3), 137))


def test_uint8_is_rounded_and_clamped_after_each_pass() -> None:
    image = np.array([[0, 255], [255, 0]], np.uint8).repeat(6, 0).repeat(6, 1)
    rows = np.clip(np.floor(imresize(image.astype(float), size=(6, 12)) + 0.5), 0, 255)
    both = np.clip(np.floor(imresize(rows, size=(6, 6)) + 0.5), 0, 255)
    result = imresize(image, 0.5)
    assert result.dtype == np.uint8
    assert np.array_equal(result, both)


def test_a_half_is_rounded_up() -> None:
    # Scale 1/2 of a line that alternates: every output sample lies in the middle.
    image = np.array([[4, 5] * 8], np.uint8)
    assert np.array_equal(imresize(image, size=(1, 8))[:, 2:-2], np.full((1, 4), 5))


def test_size_gives_each_side_its_own_scale() -> None:
    image = np.random.default_rng(2).normal(size=(9, 8, 3))
    result = imresize(image, size=(3, 16))
    one_by_one = imresize(imresize(image, size=(3, 8)), size=(3, 16))
    assert result.shape == (3, 16, 3)
    np.testing.assert_allclose(result, one_by_one, atol=1e-13)


@pytest.mark.parametrize(
    ("image", "arguments"),
    [
        pytest.param(np.zeros((4, 4)), {}, id="neither"),
        pytest.param(np.zeros((4, 4)), {"scale": 2, "size": (8, 8)}, id="both"),
        pytest.param(np.zeros((4, 4)), {"scale": 0}, id="zero"),
        pytest.param(np.zeros((4, 4)), {"scale": -1}, id="negative"),
        pytest.param(np.zeros((4, 4)), {"scale": math.nan}, id="nan"),
        pytest.param(np.zeros((4, 4)), {"size": (0, 4)}, id="empty-size"),
        pytest.param(np.zeros((0, 4)), {"scale": 2}, id="empty-picture"),
        pytest.param(np.zeros(4), {"scale": 2}, id="one-dimension"),
        pytest.param(np.zeros((4, 4), np.int32), {"scale": 2}, id="integers"),
    ],
)
def test_senseless_arguments_are_refused(image: NDArray[Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="imresize takes"):
        imresize(image, **arguments)


@pytest.mark.shared
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("name", "pictures"), [("Set5", 5), ("Set14", 14)])
def test_reproduces_every_low_resolution_file_of_the_benchmarks(name: str, pictures: int, scale: int) -> None:
    """Those files repeat the border sample; away from the border MATLAB's mirroring gives the same."""
    if not DATA.is_dir():
        pytest.skip(f"the benchmark pictures are not in {DATA}")
    files = sorted((DATA / name / f"x{scale}").glob("*_HR.png"))
    assert len(files) == pictures
    for file in files:
        high = read_picture(file).pixels
        low = read_picture(str(file).replace("_HR", "_LR")).pixels
        assert np.array_equal(imresize(high, 1 / scale, border="repeat"), low), file.name
        assert np.array_equal(imresize(high, 1 / scale)[2:-2, 2:-2], low[2:-2, 2:-2]), file.name
