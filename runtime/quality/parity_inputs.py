"""Inputs on which artifacts are compared: random values, a test chart, worst cases, odd sizes, and pictures."""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.quality.evaluate import Pair, all_of, find_pairs
from flashrib.runtime.sessions.protocol import Batch

SEED = 20250101
MADE_SIDE = 72  # more than one window of 64, and no whole number of any window
DEFAULT_SIDE = 128  # of pictures: small enough for the CPU, large enough to look at

Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        name: unique among the inputs of a comparison.
        batch: (1, 3, H, W) RGB, 0..1, float32.
        truth: (scale*H, scale*W, 3) RGB, uint8: the original that the picture was reduced from; None where there is none.
        shown: whether there is anything to see in it, for the report.
    """

    name: str
    batch: Batch
    truth: Pixels | None = None
    shown: bool = False


def made_cases(
    minimum: int, side: int = DEFAULT_SIDE, seed: int = SEED, size: tuple[int, int] | None = None
) -> list[Case]:
    """Make the inputs that need no files.

    Args:
        minimum: smallest side in pixels that every artifact takes.
        side: side in pixels of the chart, at least `minimum`.
        seed: of the random values; the same seed gives the same inputs.
        size: (H, W) in pixels that all inputs must have, because an artifact takes no other; None: several sizes.
    """
    made = max(MADE_SIDE, minimum + 3)
    large = size or (made, made)
    small = size or (minimum, minimum + 1)
    random = np.random.default_rng(seed)
    rows, columns = np.indices(small)
    cases = [
        Case("random", random.random((1, 3, *large), np.float32)),
        Case("chart", _batch(chart(*(size or (max(side, minimum),) * 2))), shown=True),
        Case("black", np.zeros((1, 3, *small), np.float32)),
        Case("white", np.ones((1, 3, *small), np.float32)),
        Case("noise", random.integers(0, 2, (1, 3, *small)).astype(np.float32)),
        Case("checkerboard", np.tile(((rows + columns) % 2).astype(np.float32), (1, 3, 1, 1))),
    ]
    if size is not None:
        return [_of_size(case, size) for case in cases]
    for height, width in ((minimum, minimum), (minimum + 1, made | 1), (made | 1, minimum + 2)):
        cases.append(Case(f"{width}x{height}", random.random((1, 3, height, width), np.float32)))
    return cases


def chart(height: int, width: int) -> NDArray[np.float64]:
    """A test chart (H, W, 3), 0..1: rings that grow finer to the far corner over two ramps of colour, and a checkerboard of bars."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    # The phase's gradient, in radians per pixel, reaches pi, the finest wave that pixels can hold, in the far corner.
    rings = 0.5 + 0.5 * np.cos(np.pi / 2 * (np.square(y) * height + np.square(x) * width))
    picture = np.stack([rings * x, rings * (1 - y), rings * (1 - x) + (1 - rings) * y], axis=-1)
    bars = slice(0, height // 4), slice(3 * width // 4, width)
    rows, columns = np.indices((height, width))
    picture[bars] = (((rows // 3 + columns // 3) % 2) * 0.9 + 0.05)[bars][..., None]
    return picture


def picture_cases(
    folder: Path, scale: int, minimum: int, side: int = DEFAULT_SIDE, size: tuple[int, int] | None = None
) -> list[Case]:
    """Read the pictures of a folder, sorted by name; larger ones are cut out of their middle.

    NAME_LR.* beside NAME_HR.* (see `find_pairs`): the former are the inputs, the latter the originals. Otherwise every picture
    is an input without an original. Gray pictures count as RGB; transparency is ignored.

    Args:
        folder: of the pictures.
        scale: magnification of the artifacts.
        minimum: smallest side in pixels that every artifact takes.
        side: longest side of an input in pixels.
        size: (H, W) that all inputs must have; None: at most `side` each.

    Raises:
        PictureError: see `find_pairs` and `read_picture`; or a picture is too small, or a pair's sizes do not belong together.
    """
    height, width = size or (max(side, minimum), max(side, minimum))
    least = size or (minimum, minimum)
    cases: list[Case] = []
    bad: list[PictureError] = []
    for pair in find_pairs(folder):
        try:
            cases.append(_case(pair, height, width, least, scale))
        except PictureError as error:
            bad.append(error)
    if bad:
        raise all_of(bad)
    return cases if size is None else [_of_size(case, size) for case in cases]


def _case(pair: Pair, height: int, width: int, least: tuple[int, int], scale: int) -> Case:
    """Read one picture and, where there is one, its original."""
    path = pair.low or pair.high
    low = _eight_bits(path)
    if low.shape[0] < least[0] or low.shape[1] < least[1]:
        raise PictureError(
            f"{path}: has {low.shape[1]}x{low.shape[0]} pixels, but the artifacts take no less than {least[1]}x{least[0]}:"
            " leave it out of --pictures"
        )
    rows, columns = _middle(low.shape[0], height), _middle(low.shape[1], width)
    truth = None
    if pair.low is not None:
        high = _eight_bits(pair.high)
        if (high.shape[0] // scale, high.shape[1] // scale) != low.shape[:2]:
            raise PictureError(
                f"{pair.high}: has {high.shape[1]}x{high.shape[0]} pixels, which is not {scale} times the"
                f" {low.shape[1]}x{low.shape[0]} of {path.name}: the artifacts upscale by {scale}"
            )
        truth = high[scale * rows.start : scale * rows.stop, scale * columns.start : scale * columns.stop]
    return Case(path.name, _batch(low[rows, columns] / 255), truth, shown=True)


def _of_size(case: Case, size: tuple[int, int]) -> Case:
    """Name an input after its size, because inputs of several sizes may stand in one table."""
    return dataclasses.replace(case, name=f"{case.name} {size[1]}x{size[0]}")


def _middle(length: int, most: int) -> slice:
    start = max(0, (length - most) // 2)
    return slice(start, start + min(length, most))


def _batch(picture: NDArray[np.float64]) -> Batch:
    """(H, W, 3) -> (1, 3, H, W) float32."""
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)


def _eight_bits(path: Path) -> Pixels:
    pixels = read_picture(path).pixels
    return np.rint(pixels / 257).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
