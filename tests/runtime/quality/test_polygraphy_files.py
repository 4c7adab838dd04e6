"""`flashrib verify --polygraphy`: what it writes runs in Polygraphy, between reference and ONNX Runtime."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from flashrib.runtime.cli import main
from flashrib.runtime.quality import polygraphy_files
from tests.runtime.models import write_onnx

needs_polygraphy = pytest.mark.skipif(
    importlib.util.find_spec("polygraphy") is None, reason="needs the extra [polygraphy]"
)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A reference and a model that computes the same."""
    for name in ("reference.onnx", "model.onnx"):
        write_onnx(tmp_path / name)
    return tmp_path / "reference.onnx", tmp_path / "model.onnx"


def polygraphy(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    tool = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["sh", str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": tool},
    )


@needs_polygraphy
@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
def test_polygraphy_runs_what_is_written(files: tuple[Path, Path], tmp_path: Path) -> None:
    reference, model = files
    out = tmp_path / "out"
    assert main(["verify", str(reference), str(model), "--side", "16", "--polygraphy", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "inputs.npz",
        "data_loader.py",
        "golden.json",
        "compare.py",
        "run.sh",
    }
    done = polygraphy(out / "run.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "RMS ratio" in done.stdout
    changed = onnx.load(reference)
    next(a for a in changed.graph.node[0].attribute if a.name == "nearest_mode").s = b"ceil"
    onnx.save(changed, model)
    done = polygraphy(out / "run.sh")
    assert done.returncode == 1, done.stdout


def test_polygraphy_is_asked_for(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polygraphy_files.importlib.util, "find_spec", lambda name: None)
    assert main(["verify", *map(str, files), "--polygraphy", str(tmp_path / "out")]) == 1
    assert "--polygraphy needs the package 'polygraphy', which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@needs_polygraphy
def test_one_onnx_file(files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference, model = files
    command = ["verify", str(reference), str(model), str(reference), "--side", "16"]
    assert main([*command, "--polygraphy", str(tmp_path / "out")]) == 2
    assert "--polygraphy: takes one artifact, an ONNX file" in capsys.readouterr().err
