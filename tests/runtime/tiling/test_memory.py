"""Tiles and bands by the memory that is left, and sizes that are remembered."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from flashrib.runtime.errors import OutOfMemoryError
from flashrib.runtime.jobs.run import Options, within_memory
from flashrib.runtime.tiling import memory, remembered
from flashrib.runtime.tiling.upscale import tile_sides, upscale_array
from tests.runtime.sessions.fakes import FakeSession, SmallMemorySession
from tests.runtime.tiling.test_upscale import noise


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    """A network that takes 1000 bytes a pixel, in a process that takes 100 MB."""
    session = FakeSession()
    monkeypatch.setattr(memory, "_resident", lambda: 100 * 2**20)
    monkeypatch.setattr(memory, "_peak", lambda: 1000 * session.shapes[-1][0] * session.shapes[-1][1])
    return session


@pytest.mark.parametrize(("total", "tile"), [(200, 88), (2000, 512)])
def test_the_tile_fits(measured: FakeSession, total: int, tile: int) -> None:
    options = within_memory(measured, Options(), total * 2**20)
    assert options.tile == tile
    left = (total - 100) * 2**20
    assert 1000 * (tile + 128) ** 2 <= memory.TILE_SHARE * left
    assert options.band_bytes + options.held_bytes < left / 2
    assert options.identity == Options(tile=tile).identity, "what memory decides is no matter of the result"


def test_what_is_asked_for_stays(measured: FakeSession) -> None:
    assert within_memory(measured, Options(tile=512), 200 * 2**20).tile == 512
    assert measured.shapes == []


@pytest.mark.parametrize(("total", "words"), [(90, "take 100 MB before"), (101, "the smallest tile")])
def test_too_little(measured: FakeSession, total: int, words: str) -> None:
    with pytest.raises(OutOfMemoryError, match=words):
        within_memory(measured, Options(), total * 2**20)


def test_real_figures() -> None:
    assert memory._resident() > 2**24
    assert memory._peak() >= memory._resident() // 2


@pytest.mark.parametrize(("most", "sides"), [(10**9, (256, 256)), (3 * 1000 * 100, (96, 576)), (1, (32, 992))])
def test_bands_become_lower_and_tiles_wider(most: int, sides: tuple[int, int]) -> None:
    seen = memory.flatter((256, 256), 32, 32, 10_000, 1000, most)
    assert seen == sides
    assert (seen[0] + 64) * (seen[1] + 64) <= 320 * 320


def test_a_size_that_fitted_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    session = SmallMemorySession()
    session.limit, session.place = 100 * 100, "a device"
    first = upscale_array(session, noise(300, 300, 3), halo=8)
    tried = len(session.shapes)
    again = upscale_array(session, noise(300, 300, 3), halo=8)
    np.testing.assert_array_equal(first, again)
    assert max(height * width for height, width in session.shapes[tried:]) <= session.limit
    assert tile_sides(SmallMemorySession(), None, 8, 300, 300) == (256, 256), "another place"
    entries = json.loads((tmp_path / "flashrib" / "tiles.json").read_text())
    assert list(entries) == ["a device"]
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert remembered.most_pixels("a device") is None


@pytest.mark.parametrize("content", ["", "[]", '{"a device": 3}', '{"a device": [-1, 99999999999]}', "\x00"])
def test_a_damaged_memory(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "flashrib").mkdir()
    (tmp_path / "flashrib" / "tiles.json").write_text(content)
    assert remembered.most_pixels("a device") is None
    remembered.remember("a device", 9)
    assert remembered.most_pixels("a device") == 9


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remembered.remember("a device", 9)
    assert remembered.most_pixels("a device") is None
