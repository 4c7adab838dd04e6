"""The package list in pyproject.toml is written by hand, because the folders lie at the repository's root."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("export", "runtime", "model", "calibration")


def test_the_list_of_packages_is_complete() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert listed == sorted("flashrib." + ".".join(folder.parts) for folder in folders)
    without_init = sorted(str(folder) for folder in folders if not (ROOT / folder / "__init__.py").is_file())
    assert without_init == []
