"""The bundled model: where it lies, and what happens where it does not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from flashrib.runtime.artifacts import bundled
from flashrib.runtime.artifacts.bundled import default_model, default_weights
from flashrib.runtime.errors import ModelError


@pytest.mark.parametrize(
    ("find", "name"), [(default_model, bundled.MODEL), (default_weights, bundled.WEIGHTS)], ids=["model", "weights"]
)
def test_the_files_lie_in_the_package(
    find: Callable[[], Path], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path / package)
    with pytest.raises(ModelError, match=rf"weights/{name}: the bundled model is missing from this installation"):
        find()
    path = tmp_path / "flashrib.runtime" / "weights" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"model")
    assert find() == path
