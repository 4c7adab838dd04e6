"""Pyramids: the picture itself, then levels of half the size, in plain TIFF and in OME-TIFF, from bands and from memory."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.cli import main
from flashrib.runtime.pictures.files import Picture, read_picture
from flashrib.runtime.pictures.large.pyramid import levels, passed
from flashrib.runtime.pictures.large.sink import write_pyramid
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise

tifffile = pytest.importorskip("tifffile")


def halved(pixels: NDArray[Any]) -> NDArray[Any]:
    padded = np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], mode="edge").astype(int)
    total = padded[::2, ::2] + padded[::2, 1::2] + padded[1::2, ::2] + padded[1::2, 1::2]
    return ((total + 2) // 4).astype(pixels.dtype)


@pytest.mark.parametrize("cuts", [[0, 601], [0, 1, 2, 3, 7, 300, 600, 601], [0, 255, 511, 601]])
def test_levels(cuts: list[int], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (601, 523, 3), dtype=np.uint16)
    with levels(pixels.shape, pixels.dtype, tmp_path) as made:
        parts = (pixels[a:b] for a, b in itertools.pairwise(cuts))
        np.testing.assert_array_equal(np.concatenate(list(passed(parts, made))), pixels)
        wanted = pixels
        for level in made:
            wanted = halved(wanted)
            assert level.shape == wanted.shape
            np.testing.assert_array_equal(np.concatenate(list(level.rows())), wanted)
    assert max(wanted.shape[:2]) <= 256
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture(name: str, channels: int, dtype: Any, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    pixels = generator.integers(0, np.iinfo(dtype).max, (300, 530, 3), dtype=dtype)
    pixels = np.repeat(pixels[..., :1], 3, axis=2) if channels == 1 else pixels
    alpha = pixels[..., 0].copy() if channels == 4 else None
    write_pyramid(tmp_path / name, Picture(pixels, alpha, gray=channels == 1))
    with tifffile.TiffFile(tmp_path / name) as tiff:
        assert tiff.is_ome == (name == "out.ome.tif")
        seen = [level.asarray() for level in tiff.series[0].levels]
    assert [level.shape[:2] for level in seen] == [(300, 530), (150, 265), (75, 133)]
    wanted = pixels[..., 0] if channels == 1 else pixels if alpha is None else np.dstack([pixels, alpha])
    np.testing.assert_array_equal(seen[0], wanted)
    np.testing.assert_array_equal(seen[1], halved(wanted.reshape(300, 530, -1)).reshape(seen[1].shape))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyvips")
    monkeypatch.chdir(tmp_path)
    write_onnx(tmp_path / "model.onnx")
    Image.fromarray(noise(200, 300, 3)).save("in.png")
    command = ["upscale", "in.png", "--model", "model.onnx"]
    assert main([*command, "-o", "whole.tif"]) == 0
    assert main([*command, "-o", "out.tif", "--pyramid"]) == 0
    monkeypatch.setattr("flashrib.runtime.jobs.picture.Options.bands_from", 1)
    assert main([*command, "-o", "bands.tif", "--pyramid"]) == 0
    for name in ("out.tif", "bands.tif"):
        with tifffile.TiffFile(name) as tiff:
            assert [level.shape for level in tiff.series[0].levels] == [(400, 600, 3), (200, 300, 3), (100, 150, 3)]
            np.testing.assert_array_equal(tiff.asarray(), read_picture("whole.tif").pixels)
    np.testing.assert_array_equal(read_picture("out.tif").pixels, read_picture("whole.tif").pixels)
    capsys.readouterr()
    assert main([*command, "-o", "out.png", "--pyramid"]) == 2
    assert capsys.readouterr().err == (
        "flashrib: error: out.png: --pyramid is for TIFF: give a name such as large.tif, or --format tif\n"
    )
