import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.calibration.tiles import KINDS, TileSet, draw_tiles
from flashrib.runtime.errors import FlashribError, PictureError, UsageError
from tests.calibration.cases import smooth, write_pictures


def draw(folder: Path, seed: int = 0, **changed: int) -> TileSet:
    return draw_tiles(folder, **({"scale": 2, "side": 12, "count": 10, "held_out": 4, "seed": seed} | changed))


def places(drawn: TileSet) -> list[tuple[str, int, int]]:
    return [(tile.picture, tile.row, tile.column) for tile in (*drawn.calibration, *drawn.held_out)]


def test_the_seed_decides(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p")
    assert places(draw(folder)) == places(draw(folder))
    assert places(draw(folder)) != places(draw(folder, seed=1))


def test_sizes_and_counts(tmp_path: Path) -> None:
    drawn = draw(write_pictures(tmp_path / "p", side=61))
    assert (len(drawn.calibration), len(drawn.held_out), drawn.pictures) == (10, 4, 12)
    for tile in (*drawn.calibration, *drawn.held_out):
        assert (tile.low.shape, tile.high.shape) == ((12, 12, 3), (24, 24, 3))
    assert len(set(places(drawn))) == 14


def test_pictures_that_measure_calibrate_nothing(tmp_path: Path) -> None:
    drawn = draw(write_pictures(tmp_path / "p"))
    held = [tile.picture for tile in drawn.held_out]
    assert len(set(held)) == 4
    assert not set(held) & {tile.picture for tile in drawn.calibration}


def test_every_kind_is_found(tmp_path: Path) -> None:
    """One tile of each extreme is hidden in pictures without any."""
    folder = write_pictures(tmp_path / "p", count=10)
    random = np.random.default_rng(0)
    hidden = {
        "textured": random.choice(np.array([60, 190], np.uint8), (24, 24, 1)).repeat(3, 2),
        "flat": np.full((24, 24, 3), 120, np.uint8),
        "dark": random.integers(0, 3, (24, 24, 3), dtype=np.uint8),
        "saturated": np.where(np.arange(3) == 0, 255, smooth(24, 5)).astype(np.uint8),
    }
    for path in folder.iterdir():
        middle = np.clip(smooth(48, 3).astype(int) // 4 + 90, 0, 255).astype(np.uint8)
        corners = [(0, 0), (0, 24), (24, 0), (24, 24)]
        for (row, column), pixels in zip(corners, hidden.values(), strict=True):
            middle[row : row + 24, column : column + 24] = pixels
        Image.fromarray(middle).save(path)
    drawn = draw(folder, count=5)
    assert [tile.kind for tile in drawn.calibration] == list(KINDS)
    seen = {tile.kind: (tile.row, tile.column) for tile in drawn.calibration}
    assert [seen[kind] for kind in hidden] == [(0, 0), (0, 12), (12, 0), (12, 12)]


def test_the_hash_tells_the_pictures(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p")
    before = draw(folder).sha256
    assert draw(folder).sha256 == before
    Image.fromarray(smooth(60, 99)).save(folder / "p03.png")
    assert draw(folder).sha256 != before


@pytest.mark.parametrize(
    ("count", "changed", "kind", "text"),
    [
        pytest.param(7, {}, PictureError, "7 pictures are too few to calibrate with: at least 8", id="too few"),
        pytest.param(
            12, {"side": 31}, PictureError, "60x60 pixels are fewer than a tile of 31x31 takes at x2", id="small"
        ),
        pytest.param(12, {"held_out": 7}, UsageError, "at most half can be held out: 7 are asked for", id="held out"),
        pytest.param(
            12, {"count": 999}, UsageError, "999 tiles of 12x12 are asked for, but 8 pictures have 32", id="tiles"
        ),
    ],
)
def test_refused(count: int, changed: dict[str, int], kind: type[FlashribError], text: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=text):
        draw(write_pictures(tmp_path / "p", count), **changed)


def test_an_unreadable_picture_is_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p")
    (folder / "p05.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    with pytest.raises(PictureError, match=r"p05\.png"):
        draw(folder, count=32)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="missing: cannot be read as a folder of pictures"):
        draw(tmp_path / "missing")


def test_16_bits_count_as_8(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "p", count=11)
    Image.fromarray(smooth(60, 1)[:, :, 0].astype(np.uint16) * 257).save(folder / "deep.png")
    drawn = draw(folder, count=28)
    tile = next(tile for tile in (*drawn.calibration, *drawn.held_out) if tile.picture == "deep.png")
    assert tile.low.dtype == np.uint8
    assert dataclasses.asdict(tile)["low"].max() > 50
