"""Folders of low-resolution pictures: what belongs together is found, and what does not is named."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import load_pairs, pairs_of, pictures_of
from flashrib.model.training.pairing import find_partners
from flashrib.runtime.errors import PictureError, UsageError


def write(path: Path, height: int, width: int, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    for name, low in (("a.png", "a.bmp"), ("below/b.png", "below/bx2.png"), ("c.png", "c.png")):
        write(tmp_path / "high" / name, 40, 32)
        write(tmp_path / "low" / low, 20, 16, 9)
    return str(tmp_path / "high"), str(tmp_path / "low")


def test_names_are_paired(folders: tuple[str, str]) -> None:
    high, low = map(Path, folders)
    assert find_partners([folders[0]], [folders[1]], 2, recursive=True) == {
        high / "a.png": low / "a.bmp",
        high / "below/b.png": low / "below/bx2.png",
        high / "c.png": low / "c.png",
    }
    assert set(find_partners([folders[0]], [folders[1]], 2, recursive=False)) == {high / "a.png", high / "c.png"}


def test_pairs_are_taken_as_they_are(folders: tuple[str, str]) -> None:
    partners = find_partners([folders[0]], [folders[1]], 2, recursive=True)
    paths = pictures_of([folders[0]], recursive=True)
    pairs = load_pairs(paths, 2, partners=partners)
    assert [(pair.high.shape, pair.low.shape, int(pair.low.max())) for pair in pairs] == [
        ((40, 32, 3), (20, 16, 3), 9)
    ] * 3
    assert load_pairs(paths, 2, least=16, partners=partners)
    with pytest.raises(UsageError, match="make patch smaller"):
        load_pairs(paths, 2, least=17, partners=partners)


def test_pictures_without_partners(folders: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match=r"below/b\.png: there is no low-resolution picture of this name in .*low$"):
        find_partners([folders[0]], [folders[1]], 3, recursive=True)
    (Path(folders[1]) / "a.bmp").unlink()
    with pytest.raises(UsageError, match=r"a\.png: there is no low-resolution picture .*, nor for 1 others"):
        find_partners([folders[0]], [folders[1]], 3, recursive=True)
    with pytest.raises(UsageError, match="cannot be read as a folder"):
        find_partners([folders[0]], [folders[1] + "er"], 2, recursive=True)


def test_two_partners(folders: tuple[str, str]) -> None:
    write(Path(folders[1]) / "a.png", 20, 16)
    with pytest.raises(UsageError, match=r"a\.png: a\.bmp has the same name"):
        find_partners([folders[0]], [folders[1]], 2, recursive=True)


def test_sizes_that_do_not_match(tmp_path: Path) -> None:
    high, low = write(tmp_path / "high.png", 40, 32), write(tmp_path / "low.png", 20, 15)
    with pytest.raises(
        PictureError, match=r"low\.png: has 15x20 pixels, but .*high\.png has 32x40, which is not 2 times"
    ):
        pairs_of(high, 2, (1.0,), 1, low)


def test_fields() -> None:
    config = TrainConfig(data=("a", "b"), data_low=("c", "d"))
    for changes in ({"degradation": "photo"}, {"downscales": (1.0, 0.5)}):
        with pytest.raises(UsageError, match="leave degradation and downscales out"):
            dataclasses.replace(config, **changes)
    with pytest.raises(UsageError, match=r"data_low = \('c',\) is out of range"):
        dataclasses.replace(config, data_low=("c",))
