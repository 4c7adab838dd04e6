"""Bundled models: unpacked once, checked each time, named on the command line."""

import hashlib
import lzma
from pathlib import Path

import pytest

from flashrib.runtime.artifacts import bundled
from flashrib.runtime.artifacts.bundled import BUNDLED, bundled_model, bundled_weights, is_bundled, or_bundled_weights
from flashrib.runtime.errors import ModelError, UsageError
from tests.places import ROOT

NAME = BUNDLED["x4"].model


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installation that has one file, and a cache of its own."""
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path / package)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "flashrib.runtime" / "weights"
    folder.mkdir(parents=True)
    (folder / f"{NAME}.xz").write_bytes(lzma.compress(b"model"))
    (folder / bundled.SUMS).write_text(f"{hashlib.sha256(b'model').hexdigest()}  {NAME}\n")
    return folder


def test_a_file_is_unpacked_once(weights: Path, tmp_path: Path) -> None:
    path = bundled_model("x4")
    assert path.read_bytes() == b"model"
    assert path.is_relative_to(tmp_path / "cache" / "flashrib")
    (weights / f"{NAME}.xz").unlink()
    assert bundled_model("x4") == path


def test_what_was_changed_since_is_unpacked_again(weights: Path) -> None:
    bundled_model("x4").write_bytes(b"other")
    assert bundled_model("x4").read_bytes() == b"model"


def test_without_a_cache_it_lies_in_a_temporary_folder(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (weights / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(weights / "file"))  # no folder can be made below it
    assert bundled_model("x4").read_bytes() == b"model"


def test_an_installation_that_lacks_it(weights: Path) -> None:
    with pytest.raises(ModelError, match="the bundled model is missing from this installation"):
        bundled_weights("x4")


@pytest.mark.parametrize("content", [b"no archive", lzma.compress(b"other model")], ids=["archive", "content"])
def test_damage(weights: Path, content: bytes) -> None:
    (weights / f"{NAME}.xz").write_bytes(content)
    with pytest.raises(ModelError, match="install flashrib again"):
        bundled_model("x4")


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_bundled(None)
    assert is_bundled(Path("photo"))
    assert not is_bundled("photo.onnx")
    assert or_bundled_weights(Path("mine.pth")) == Path("mine.pth")
    with pytest.raises(UsageError, match="x3: no bundled model has this name; there are x2, x4, photo"):
        bundled_model("x3")
    Path("photo").touch()
    with pytest.raises(UsageError, match="a bundled model has this name and so has a file here"):
        is_bundled("photo")


def test_all_fit_into_the_wheel() -> None:
    folder = ROOT / "runtime" / "weights"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    packed = {path.name.removesuffix(".xz") for path in folder.glob("*.xz")}
    assert packed == {name for row in BUNDLED.values() for name in (row.model, row.weights)}
