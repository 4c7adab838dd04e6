"""The ensemble is the mean over the eight symmetries, whole or in tiles, in every type of pixels, and refuses what it cannot turn."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.cli import main
from flashrib.runtime.errors import SessionError, UsageError
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.sessions.ensemble import Ensemble, symmetries
from flashrib.runtime.sessions.protocol import Batch
from flashrib.runtime.tiling.upscale import upscale_array
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise
from tests.runtime.sessions.fakes import FakeSession


class Leaning(FakeSession):
    """Adds to each pixel half of the one to the left of it, twice as large: far from symmetric."""

    def __init__(self) -> None:
        super().__init__(scale=2)

    def run(self, batch: Batch) -> Batch:
        left = np.concatenate([batch[..., :1], batch[..., :-1]], axis=-1)
        result: Batch = (0.5 * (batch + 0.5 * left)).repeat(2, axis=2).repeat(2, axis=3)
        return result


def turned(index: int) -> Callable[[Any], Any]:
    """The symmetries by hand, in another way: turns by 90 degrees and a mirror."""
    return lambda x: np.rot90(x if index < 4 else x[..., ::-1], index % 4, (-2, -1))


def back(index: int) -> Callable[[Any], Any]:
    def undo(x: Any) -> Any:
        x = np.rot90(x, -(index % 4), (-2, -1))
        return x if index < 4 else x[..., ::-1]

    return undo


def test_the_mean_over_turns_and_mirrors() -> None:
    batch = np.random.default_rng(0).random((2, 3, 5, 8), dtype=np.float32)
    session = Leaning()
    wanted = sum(back(i)(session.run(np.ascontiguousarray(turned(i)(batch)))) for i in range(8)) / 8
    found = Ensemble(session).run(batch)
    assert np.abs(found - wanted).max() <= 1e-6
    assert np.abs(found - session.run(batch)).max() > 0.01
    for there, undone in symmetries(0, 1):
        np.testing.assert_array_equal(undone(there(batch[0, 0])), batch[0, 0])
    assert len({there(batch[0, 0]).tobytes() for there, _ in symmetries(0, 1)}) == 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "colour"])
def test_tiles_equal_the_whole(dtype: Any, channels: tuple[int, ...]) -> None:
    pixels = noise(20, 33, 3)[..., : channels[0] if channels else 1].reshape(20, 33, *channels)
    source = pixels.astype(dtype) * dtype(257 if dtype == np.uint16 else 1)
    if dtype == np.float32:
        source /= 255
    session = Ensemble(Leaning())
    whole = upscale_array(session, source, tile=64, halo=0)
    tiled = upscale_array(session, source, tile=8, halo=2)
    assert whole.dtype == dtype
    assert whole.shape == (40, 66, *channels)
    np.testing.assert_allclose(tiled.astype(np.float64), whole.astype(np.float64), atol=1e-6)


def test_what_cannot_be_turned_is_refused() -> None:
    session = Leaning()
    session.info = dataclasses.replace(session.info, fixed_size=(8, 16))
    with pytest.raises(UsageError, match="takes 8x16 pixels alone: export it with square tiles"):
        Ensemble(session)
    session.info = ModelInfo(noise=1.0)
    with pytest.raises(UsageError, match="takes noise"):
        Ensemble(session)


def test_nan_is_found() -> None:
    class Broken(Leaning):
        def run(self, batch: Batch) -> Batch:
            return super().run(batch) * np.float32(np.nan)

    with pytest.raises(SessionError, match="NaN"):
        upscale_array(Ensemble(Broken()), noise(8, 8, 3))


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("x2.onnx"))
    write_picture("a.png", Picture(noise(9, 12, 3)))
    command = ["upscale", "a.png", "--model", "x2.onnx", "-o"]
    assert main([*command, "plain.png"]) == 0
    assert main([*command, "mean.png", "--ensemble"]) == 0
    plain, mean = read_picture("plain.png").pixels, read_picture("mean.png").pixels
    assert plain.shape == mean.shape
    write_onnx(Path("fixed.onnx"), shape=(1, 3, 16, 32))
    assert main(["upscale", "a.png", "--model", "fixed.onnx", "-o", "b.png", "--ensemble"]) == 2
