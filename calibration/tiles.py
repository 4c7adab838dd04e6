"""Calibration tiles out of a folder of pictures, drawn by a stated rule.

Ranges of activations are set by extremes, and an extreme that no tile shows is clipped later. So tiles are not drawn at random alone:
every picture is divided into tiles, and in turn the next most `textured`, `flat`, `dark` and `saturated` tile is taken, and one
`ordinary` one at random; a picture gives one tile of a kind at most. The seed decides which pictures are looked at, in which order
ties are resolved, and which tiles are ordinary ones. Pictures that measure quality are held out before that.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.pictures.imresize import imresize

KINDS = ("textured", "flat", "dark", "saturated", "ordinary")
FEWEST = 8  # pictures; ranges of fewer say little about those to come
MOST_LOOKED_AT = 64  # pictures that calibration tiles are chosen from, so that a folder of any size is done soon
BRIGHT = 250  # of 255; a channel value from here on counts as saturated

Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Tile:
    """A part of a picture: low resolution (H, W, 3) and what it was made from (rH, rW, 3), uint8 RGB.

    `kind` is one of `KINDS`; `row` and `column` are those of its corner in the low-resolution picture.
    """

    picture: str
    kind: str
    row: int
    column: int
    low: Pixels
    high: Pixels


@dataclasses.dataclass(frozen=True)
class TileSet:
    """Tiles to collect ranges on, and tiles of other pictures to measure quality on.

    `sha256` is the hash of the names and contents of all pictures that were read, `pictures` their number.
    """

    calibration: tuple[Tile, ...]
    held_out: tuple[Tile, ...]
    sha256: str
    pictures: int


def draw_tiles(folder: Path, scale: int, side: int, count: int, held_out: int, seed: int) -> TileSet:
    """Draw `count` calibration tiles of all kinds, and `held_out` tiles, each from another picture.

    A held-out tile is drawn at random, but never a flat one (standard deviation of luma below 4 of 255), on which PSNR says nothing.

    Args:
        folder: with pictures of any kind that flashrib reads; folders within it are not looked at.
        scale: magnification of the model: pictures are reduced by it, as MATLAB's imresize does.
        side: of a tile in pixels of the input.
        count: calibration tiles, >= 1.
        held_out: tiles to measure on, >= 1.
        seed: see above; the same seed, folder and numbers give the same tiles.

    Raises:
        PictureError: the folder is missing or has fewer than `FEWEST` pictures, a picture cannot be read or is smaller than a tile.
        UsageError: more tiles are asked for than the pictures have.
    """
    paths = list_pictures(folder)
    if len(paths) < FEWEST:
        raise PictureError(
            f"{folder}: {len(paths)} pictures are too few to calibrate with: at least {FEWEST}, better 100"
        )
    order = np.random.default_rng(seed).permutation(len(paths))
    shuffled = [paths[index] for index in order]
    aside = min(held_out, len(paths) // 2)
    if held_out > aside:
        raise UsageError(
            f"{folder}: {len(paths)} pictures, of which at most half can be held out: {held_out} are asked for; use --held-out {aside}"
        )
    digest = hashlib.sha256()
    measured = [_random_tile(path, scale, side, seed, digest) for path in shuffled[:held_out]]
    looked_at = shuffled[held_out : held_out + max(MOST_LOOKED_AT, count)]
    candidates = [tile for path in looked_at for tile in _all_tiles(path, scale, side, digest)]
    if count > len(candidates):
        raise UsageError(
            f"{folder}: {count} tiles of {side}x{side} are asked for, but {len(looked_at)} pictures have {len(candidates)}"
        )
    chosen = _choose(candidates, count, np.random.default_rng(seed + 1))
    return TileSet(tuple(chosen), tuple(measured), digest.hexdigest(), held_out + len(looked_at))


def _read(path: Path, scale: int, side: int, digest: "hashlib._Hash") -> tuple[Pixels, Pixels]:
    """Return the picture in high and low resolution, both whole multiples."""
    picture = read_picture(path)
    if min(picture.height, picture.width) < side * scale:
        raise PictureError(
            f"{path}: {picture.width}x{picture.height} pixels are fewer than a tile of {side}x{side} takes at x{scale}"
            f" ({side * scale} a side): leave the picture out, or use a smaller --tile"
        )
    digest.update(path.name.encode() + b"\0" + path.read_bytes())
    pixels = picture.pixels if picture.pixels.dtype == np.uint8 else np.rint(picture.pixels / 257).astype(np.uint8)
    height, width = picture.height // scale * scale, picture.width // scale * scale
    high: Pixels = np.ascontiguousarray(pixels[:height, :width])
    return high, imresize(high, size=(height // scale, width // scale))


def _cut(path: Path, kind: str, high: Pixels, low: Pixels, row: int, column: int, side: int, scale: int) -> Tile:
    fine = high[row * scale : (row + side) * scale, column * scale : (column + side) * scale]
    return Tile(path.name, kind, row, column, low[row : row + side, column : column + side].copy(), fine.copy())


def _random_tile(path: Path, scale: int, side: int, seed: int, digest: "hashlib._Hash") -> Tile:
    high, low = _read(path, scale, side, digest)
    generator = np.random.default_rng([seed, *path.name.encode()])
    best: Tile | None = None
    for _ in range(8):
        row, column = (int(generator.integers(length - side + 1)) for length in low.shape[:2])
        tile = _cut(path, "held out", high, low, row, column, side, scale)
        if best is None or _luma(tile).std() > _luma(best).std():
            best = tile
        if _luma(tile).std() >= 4:
            return tile
    assert best is not None
    return best


def _all_tiles(path: Path, scale: int, side: int, digest: "hashlib._Hash") -> list[Tile]:
    high, low = _read(path, scale, side, digest)
    rows, columns = (range(0, length - side + 1, side) for length in low.shape[:2])
    return [_cut(path, "", high, low, row, column, side, scale) for row in rows for column in columns]


def _choose(tiles: list[Tile], count: int, generator: np.random.Generator) -> list[Tile]:
    """Take in turn the foremost tile of every kind that is still there, of a picture that has not given one of this kind."""
    texture = np.array([_texture(tile) for tile in tiles])
    level = np.array([_luma(tile).mean() for tile in tiles])
    bright = np.array([(tile.low >= BRIGHT).mean() for tile in tiles])
    orders = {
        "textured": np.argsort(-texture, kind="stable"),
        "flat": np.argsort(texture, kind="stable"),
        "dark": np.argsort(level, kind="stable"),
        "saturated": np.argsort(-bright, kind="stable"),
        "ordinary": generator.permutation(len(tiles)),
    }
    chosen: list[Tile] = []
    taken: set[int] = set()
    given: set[tuple[str, str]] = set()
    while len(chosen) < count:
        kind = KINDS[len(chosen) % len(KINDS)]
        free = [int(i) for i in orders[kind] if int(i) not in taken]
        index = next((i for i in free if (kind, tiles[i].picture) not in given), free[0])
        taken.add(index)
        given.add((kind, tiles[index].picture))
        chosen.append(dataclasses.replace(tiles[index], kind=kind))
    return chosen


def _luma(tile: Tile) -> NDArray[np.float64]:
    luma: NDArray[np.float64] = tile.low @ np.array([0.299, 0.587, 0.114])
    return luma


def _texture(tile: Tile) -> float:
    """Mean absolute difference between neighbours, in steps of 8 bits."""
    luma = _luma(tile)
    return float(np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean())
