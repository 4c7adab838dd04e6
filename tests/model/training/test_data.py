"""Pairs and patches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flashrib.model.training.config import TrainConfig
from flashrib.model.training.data import Pair, PatchSampler, load_pairs, make_pair, pictures_of, split
from flashrib.runtime.errors import UsageError
from flashrib.runtime.pictures.imresize import imresize


def pictures(folder: Path, count: int, size: tuple[int, int] = (41, 60)) -> list[Path]:
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return pictures_of([str(folder)])


def test_pair_is_cropped_and_shrunk() -> None:
    high = np.random.default_rng(1).integers(0, 256, (41, 60, 3), dtype=np.uint8)
    pair = make_pair(high, 4)
    assert pair.high.shape == (40, 60, 3)
    assert pair.low.shape == (10, 15, 3)
    assert np.array_equal(pair.low, imresize(high[:40], size=(10, 15)))


def test_split_holds_out_evenly() -> None:
    paths = [Path(str(i)) for i in range(10)]
    training, held = split(paths, 2)
    assert [p.name for p in held] == ["0", "5"]
    assert sorted(training + held, key=paths.index) == paths
    with pytest.raises(UsageError, match="leaves nothing to train on"):
        split(paths, 10)


@pytest.mark.parametrize("count", [3, 20], ids=["here", "in processes"])
def test_load_pairs(count: int, tmp_path: Path) -> None:
    paths = pictures(tmp_path, count)
    pairs = load_pairs(paths, 2, (1.0, 0.5), least=12)
    assert len(pairs) == count  # the half-size pictures are 20 pixels high, too small for a patch of 12 at x2
    assert len(load_pairs(paths[:2], 2, (1.0, 0.5), least=10)) == 4
    assert all(np.array_equal(p.low, imresize(p.high, size=p.low.shape[:2])) for p in pairs)
    with pytest.raises(UsageError, match="has a side of 200 pixels"):
        load_pairs(paths[:1], 2, least=100)


def test_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no pictures in this folder"):
        pictures_of([str(tmp_path)])


def numbered(height: int, width: int, scale: int) -> Pair:
    """Low and high pictures in which every high-resolution pixel carries its low-resolution address."""
    low = np.stack([*np.mgrid[:height, :width], np.zeros((height, width))], axis=-1).astype(np.uint8)
    return Pair(low.repeat(scale, 0).repeat(scale, 1), low)


def test_patches_belong_together_under_all_symmetries() -> None:
    sampler = PatchSampler(
        [numbered(20, 31, 3), numbered(44, 17, 3)], TrainConfig(data=("x",), patch=16, scale=3), torch.device("cpu")
    )
    low, high = sampler.sample(200, torch.Generator().manual_seed(0))
    assert torch.equal(high, low.repeat_interleave(3, 2).repeat_interleave(3, 3))
    steps = (low * 255).round()
    rows, columns = steps[:, 0, 1, 0] - steps[:, 0, 0, 0], steps[:, 0, 0, 1] - steps[:, 0, 0, 0]
    assert {(int(r), int(c)) for r, c in zip(rows, columns, strict=True)} == {(1, 0), (-1, 0), (0, 1), (0, -1)}


def test_every_corner_is_reached() -> None:
    sampler = PatchSampler([numbered(18, 17, 2)], TrainConfig(data=("x",), patch=16), torch.device("cpu"))
    low, _ = sampler.sample(300, torch.Generator().manual_seed(0))
    corners = (low * 255).round().amin((2, 3))[:, :2]
    assert {tuple(c) for c in corners.int().tolist()} == {(r, c) for r in range(3) for c in range(2)}
