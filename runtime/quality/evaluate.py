"""The evaluation of the super-resolution literature: PSNR and SSIM on luma, without a border of `scale` pixels, beside bicubic."""

import dataclasses
import math
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.files import Picture, read_picture
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.progress import Progress
from flashrib.runtime.quality.metrics import psnr, ssim
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.upscale import upscale_array

# Endings by which benchmarks tell the high- and the low-resolution picture apart: img_001_SRF_2_LR, 0801x2, baby_HR, bird-x4.
_ENDING = re.compile(r"([-_]srf_?\d|[-_](hr|lr)|[-_]?x\d)+$", re.IGNORECASE)
_ROLE = re.compile(r"[-_](hr|lr)$", re.IGNORECASE)

WHOLE = sys.maxsize
"""A tile that no picture exceeds."""

Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A picture in high resolution and, where there is such a file, in low resolution; otherwise it is made by bicubic reduction."""

    name: str
    high: Path
    low: Path | None


@dataclasses.dataclass(frozen=True)
class Score:
    """How near to the original a picture came.

    Attributes:
        name: of the picture.
        height: rows compared, with the border.
        width: columns compared, with the border.
        psnr: of the model in dB; infinite where it is the original.
        ssim: of the model, -1..1.
        bicubic_psnr: of bicubic interpolation (MATLAB's imresize) in dB.
        bicubic_ssim: of bicubic interpolation, -1..1.
    """

    name: str
    height: int
    width: int
    psnr: float
    ssim: float
    bicubic_psnr: float
    bicubic_ssim: float


def find_pairs(high: Path, low: Path | None = None) -> list[Pair]:
    """Find the pictures to evaluate on, sorted by name.

    Args:
        high: folder of high-resolution pictures. With `low` None it may hold the low-resolution ones as well, NAME_HR.* beside
            NAME_LR.*; where it holds none at all they are made.
        low: folder of low-resolution pictures, of the same names but for endings such as x2, _LR or _SRF_2_LR.

    Raises:
        PictureError: no such folder, no pictures in it, or a picture without its partner, or with several.
    """
    highs = list_pictures(high)
    if low is not None:
        return _match(highs, list_pictures(low), low)
    lows = [path for path in highs if _role(path) == "lr"]
    if not lows:
        return [Pair(path.stem, path, None) for path in highs]
    highs = [path for path in highs if _role(path) == "hr"]
    pairs = _match(highs, lows, high)
    if alone := sorted({path.name for path in lows} - {pair.low.name for pair in pairs if pair.low}):
        raise PictureError(f"{high / alone[0]}: no high-resolution picture NAME_HR beside it")
    return pairs


def evaluate(
    session: Session,
    pairs: list[Pair],
    *,
    tile: int | tuple[int, int] | None = None,
    halo: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Score]:
    """Upscale the low-resolution pictures and compare with the high-resolution ones, one after the other.

    Pictures of 16 bits are rounded to 8 before; transparency is ignored. Both pictures of a pair gray: they are compared as they
    are, as in the literature's 30.24 dB for bicubic x2 on Set14; otherwise on BT.601 luma, as it is for the rest.

    Args:
        session: the loaded model.
        pairs: see `find_pairs`. A high-resolution picture may have up to scale - 1 more rows and columns than the upscaled one.
        tile: see `upscale_array`; None upscales each picture whole, as the literature does, if it fits into memory.
        halo: see `upscale_array`.
        progress: see `upscale_array`.

    Raises:
        PictureError: a picture cannot be read, or the sizes of a pair do not belong together, or it is too small to compare; it is
            raised when the others are done, and names them all.
        UsageError, OutOfMemoryError, SessionError: see `upscale_array`.
    """
    scale = session.info.scale
    bad: list[PictureError] = []
    for pair in pairs:
        try:
            high, low = _read_pair(pair, scale)
        except PictureError as error:
            bad.append(error)
            continue
        upscaled = upscale_array(session, low, tile=WHOLE if tile is None else tile, halo=halo, progress=progress)
        bicubic = imresize(low, scale)
        try:
            figures = [metric(image, high, border=scale) for image in (upscaled, bicubic) for metric in (psnr, ssim)]
        except UsageError as error:
            bad.append(PictureError(f"{pair.high}: {error}"))
            continue
        yield Score(pair.name, high.shape[0], high.shape[1], *figures)
    if bad:
        raise all_of(bad)


def all_of(errors: list[PictureError]) -> PictureError:
    """Return one error that says all that is wrong, so that nobody mends one picture after the other."""
    if len(errors) == 1:
        return errors[0]
    return PictureError(f"{len(errors)} pictures cannot be used: " + "; ".join(map(str, errors)))


def average(scores: list[Score]) -> Score:
    """Return the arithmetic means of all figures, as the literature gives them, under the name "average"."""
    if not scores:
        raise UsageError("there are no scores to average")
    figures = {
        field.name: math.fsum(getattr(score, field.name) for score in scores) / len(scores)
        for field in dataclasses.fields(Score)
        if field.type is float
    }
    return Score("average", 0, 0, **figures)


def _role(path: Path) -> str | None:
    """ "hr" or "lr" where the name says so."""
    match = _ROLE.search(path.stem)
    return match[1].lower() if match else None


def _match(highs: list[Path], lows: list[Path], low_folder: Path) -> list[Pair]:
    """Give every high-resolution picture its low-resolution one: that of the same name, or the only one but for its ending."""
    exact = {path.stem: path for path in lows}
    pairs = []
    for high in highs:
        name = _ENDING.sub("", high.stem)
        found = [exact[high.stem]] if high.stem in exact else [p for p in lows if _ENDING.sub("", p.stem) == name]
        if len(found) != 1:
            several = " and ".join(path.name for path in found)
            problem = f"several low-resolution pictures, {several}," if found else f"no low-resolution picture {name}*"
            raise PictureError(f"{high}: {problem} in {low_folder}")
        pairs.append(Pair(name, high, found[0]))
    return pairs


def _read_pair(pair: Pair, scale: int) -> tuple[Pixels, Pixels]:
    """Return both pictures, (scale*H, scale*W, 3) and (H, W, 3), or without the channels where both are gray."""
    high = read_picture(pair.high)
    if pair.low is None:
        rows, columns = high.height // scale * scale, high.width // scale * scale
        if not rows or not columns:
            raise PictureError(f"{pair.high}: {high.width}x{high.height} pixels are too few to reduce by {scale}")
        pixels = _eight_bits(high, high.gray)[:rows, :columns]
        return pixels, imresize(pixels, size=(rows // scale, columns // scale))
    low = read_picture(pair.low)
    if (high.height // scale, high.width // scale) != (low.height, low.width):
        raise PictureError(
            f"{pair.high}: has {high.width}x{high.height} pixels, but {pair.low.name} upscaled by {scale} has"
            f" {low.width * scale}x{low.height * scale}"
        )
    gray = high.gray and low.gray
    return _eight_bits(high, gray)[: low.height * scale, : low.width * scale], _eight_bits(low, gray)


def _eight_bits(picture: Picture, gray: bool) -> Pixels:
    """The pixels as uint8, (H, W, 3), or (H, W) for gray ones."""
    pixels: NDArray[Any] = picture.pixels[:, :, 0] if gray else picture.pixels
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257)
    return np.ascontiguousarray(pixels, np.uint8)
