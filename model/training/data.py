"""Pairs of high- and low-resolution pictures, and random patches of them, on the training device."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flashrib.model.training.config import TrainConfig
from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.pictures.imresize import imresize

Pixels = NDArray[np.uint8]
CHUNK = 8  # pictures that one process takes at a time


@dataclasses.dataclass(frozen=True)
class Pair:
    """A high-resolution picture (rH, rW, 3) and its low-resolution one (H, W, 3), uint8 RGB."""

    high: Pixels
    low: Pixels


def pictures_of(folders: Sequence[str], recursive: bool = False) -> list[Path]:
    """Return the sorted pictures of all folders, and of those below them if `recursive`.

    Raises:
        UsageError: a folder is missing or has no pictures.
    """
    try:
        return [path for folder in folders for path in list_pictures(Path(folder), recursive=recursive)]
    except PictureError as error:
        raise UsageError(str(error)) from error


def split(paths: list[Path], validation: int) -> tuple[list[Path], list[Path]]:
    """Hold out `validation` evenly spaced pictures: (for training, for validation).

    Raises:
        UsageError: nothing would be left to train on.
    """
    if validation >= len(paths):
        raise UsageError(f"validation = {validation} leaves nothing to train on: there are {len(paths)} pictures")
    held = {paths[i * len(paths) // validation] for i in range(validation)}
    return [p for p in paths if p not in held], [p for p in paths if p in held]


def make_pair(high: Pixels, scale: int) -> Pair:
    """Crop to a multiple of `scale` and shrink as MATLAB's imresize does."""
    height, width = (side // scale * scale for side in high.shape[:2])
    high = high[:height, :width]
    return Pair(high, imresize(high, size=(height // scale, width // scale)))


def _eight_bits(path: Path) -> Pixels:
    pixels = read_picture(path).pixels
    return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)


def pairs_of(path: Path, scale: int, downscales: Sequence[float], least: int, low: Path | None = None) -> list[Pair]:
    """All sizes of one picture whose low-resolution side is at least `least`.

    Args:
        path: of the high-resolution picture.
        scale: magnification.
        downscales: sizes at which it is used, 1 being its own.
        least: pixels.
        low: the low-resolution picture, where it is not to be made.

    Raises:
        PictureError: a picture cannot be read, or `low` is not of the size that belongs to the other.
    """
    pixels = _eight_bits(path)
    if low is not None:
        small = _eight_bits(low)
        height, width = small.shape[:2]
        if pixels.shape[:2] != (scale * height, scale * width):
            raise PictureError(
                f"{low}: has {width}x{height} pixels, but {path} has {pixels.shape[1]}x{pixels.shape[0]}, which is not {scale} times that"
            )
        return [Pair(pixels, small)] if min(height, width) >= least else []
    pairs = []
    for factor in downscales:
        size = (round(pixels.shape[0] * factor), round(pixels.shape[1] * factor))
        if min(size) // scale >= least:
            pairs.append(make_pair(imresize(pixels, size=size) if factor < 1 else pixels, scale))
    return pairs


def too_small(count: int, side: int) -> UsageError:
    """The error for `count` pictures of which none has a side of `side` pixels."""
    return UsageError(f"none of the {count} pictures has a side of {side} pixels: make patch smaller")


def load_pairs(
    paths: list[Path],
    scale: int,
    downscales: Sequence[float] = (1.0,),
    least: int = 1,
    partners: Mapping[Path, Path] | None = None,
) -> list[Pair]:
    """Read pictures and make their pairs, on all cores; those in `partners` have their low-resolution pictures there.

    Raises:
        PictureError: see `pairs_of`.
        UsageError: no picture is large enough for one patch.
    """
    low = partners or {}
    columns = zip(*((path, scale, tuple(downscales), least, low.get(path)) for path in paths), strict=True)
    if len(paths) <= CHUNK:  # not worth a process
        pairs = [pair for found in map(pairs_of, *columns) for pair in found]
    else:
        workers = min(os.cpu_count() or 1, 16, len(paths) // CHUNK)
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            pairs = [pair for found in pool.map(pairs_of, *columns, chunksize=CHUNK) for pair in found]
    if not pairs:
        raise too_small(len(paths), least * scale)
    return pairs


class PatchSampler:
    """Random patches with flips and rotations, cut on the device with one gather for a whole batch.

    All pictures lie one after the other in one array per resolution; a patch is a set of addresses in it, and the eight symmetries
    of the square are changes of the addresses.
    """

    def __init__(self, pairs: list[Pair], config: TrainConfig, device: torch.device) -> None:
        self.patch, self.scale, self.device = config.patch, config.scale, device
        low = torch.from_numpy(np.concatenate([p.low.reshape(-1, 3) for p in pairs])).to(device)
        high = torch.from_numpy(np.concatenate([p.high.reshape(-1, 3) for p in pairs])).to(device)
        self.take(low, high, [(p.low.shape[0], p.low.shape[1]) for p in pairs])

    def take(self, low: Tensor, high: Tensor, sizes: Sequence[tuple[int, int]]) -> None:
        """Cut out of these pictures from now on.

        Args:
            low: all low-resolution pictures one after the other, (pixels, 3), on the device.
            high: all high-resolution ones.
            sizes: (H, W) of the low-resolution ones.
        """
        self.low, self.high = low, high
        counted = torch.tensor(sizes)
        areas = counted.prod(1)
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.int64), areas.cumsum(0)[:-1]]).to(self.device)
        self.sizes = counted.to(self.device)
        self.weights = areas.double().to(self.device)  # a picture is drawn in proportion to its area

    def turn(self, step: int) -> None:
        """Have the pictures of a step on the device, which are always the same here."""

    def close(self) -> None:
        """Give back what the sampler holds beside memory."""

    def sample(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (low (B, 3, p, p), high (B, 3, rp, rp)), float32 in 0..1; `generator` lives on the sampler's device."""
        which = torch.multinomial(self.weights, batch, replacement=True, generator=generator)
        room = (self.sizes[which] - self.patch + 1).double()
        corner = (torch.rand(batch, 2, device=self.device, generator=generator, dtype=torch.float64) * room).long()
        symmetry = torch.randint(8, (batch,), device=self.device, generator=generator)
        low = self.cut(self.low, which, corner, symmetry, 1)
        high = self.cut(self.high, which, corner, symmetry, self.scale)
        return low, high

    def cut(self, pixels: Tensor, which: Tensor, corner: Tensor, symmetry: Tensor, scale: int) -> Tensor:
        """Cut patches out of `pixels` (all pictures one after the other): (B, 3, scale*p, scale*p), float32 in 0..1.

        Args:
            pixels: `self.low` with scale 1, or `self.high` with the scale of the pairs.
            which: (B,), the picture.
            corner: (B, 2), row and column of the patch's corner in the low-resolution picture.
            scale: of `pixels` against the low-resolution pictures.
            symmetry: (B,), 0..7: bit 0 flips the rows, bit 1 the columns, bit 2 exchanges rows and columns.
        """
        side = self.patch * scale
        line = torch.arange(side, device=self.device)
        i, j = line[None, :, None], line[None, None, :]
        bit = symmetry[:, None, None]
        i, j = torch.where(bit & 1 > 0, side - 1 - i, i), torch.where(bit & 2 > 0, side - 1 - j, j)
        i, j = torch.where(bit & 4 > 0, j, i), torch.where(bit & 4 > 0, i, j)
        rows = corner[:, 0, None, None] * scale + i
        columns = corner[:, 1, None, None] * scale + j
        width = self.sizes[which, 1][:, None, None] * scale
        address = self.offsets[which][:, None, None] * scale**2 + rows * width + columns  # (B, side, side)
        return (pixels[address].float() / 255).permute(0, 3, 1, 2)
