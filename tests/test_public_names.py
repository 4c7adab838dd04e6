"""The names that packages offer are there, are what they say, and cost nothing before they are used."""

import subprocess
import sys
from types import ModuleType

import pytest

import flashrib.calibration
import flashrib.export

PACKAGES = pytest.mark.parametrize("package", [flashrib.export, flashrib.calibration], ids=lambda p: p.__name__)


@PACKAGES
def test_every_name(package: ModuleType) -> None:
    assert sorted(package.__all__) == sorted(package._HOMES)
    for name in package.__all__:
        value = getattr(package, name)
        assert not isinstance(value, ModuleType), f"{name} is a module: rename it"
        assert name in dir(package)


@PACKAGES
def test_no_module_hides_a_name(package: ModuleType) -> None:
    """Importing a submodule binds its name in the package, over a function of that name."""
    hidden = [name for name in package.__all__ if name in {home.split(".")[0] for home in package._HOMES.values()}]
    assert hidden == []


@PACKAGES
def test_unknown_names(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = (
        "import sys\n"
        "for package in ('torch', 'onnx', 'onnxruntime', 'numpy'): sys.modules[package] = None\n"
        "import flashrib.export, flashrib.calibration\n"
        "from flashrib.export import OPERATORS, ExportOptions\n"
        "assert 'WindowAttention' in OPERATORS and ExportOptions().chosen_opset == 20\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
