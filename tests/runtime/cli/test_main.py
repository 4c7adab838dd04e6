"""The program itself: version, help, exit codes."""

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flashrib.runtime.cli import info, main
from tests.runtime.models import write_onnx


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(info, "describe_model", fail)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert exited.value.code == 0
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"flashrib {project['version']}\n"


@pytest.mark.parametrize("command", ["upscale", "info", "evaluate", "train"])
def test_help_is_the_docstring_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])
    assert exited.value.code == 0
    shown = capsys.readouterr().out
    documentation = importlib.import_module(f"flashrib.runtime.cli.{command}").run.__doc__
    assert all(line.strip() in shown for line in documentation.splitlines())
    assert f"  flashrib {command}" in shown


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "flashrib: interrupted"),
        (
            MemoryError(),
            1,
            "flashrib: error: out of memory: use a smaller --tile, or leave more memory to this process",
        ),
        (PermissionError(13, "Permission denied", "x.onnx"), 1, "flashrib: error: x.onnx: Permission denied"),
        (OSError(28, "No space left on device"), 1, "flashrib: error: No space left on device"),
        (
            KeyError("a\nb"),
            1,
            r"flashrib: error: unexpected KeyError: 'a\nb': this is a bug in flashrib; please report this command, and what"
            " it prints with FLASHRIB_DEBUG=1",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
def test_errors(
    error: BaseException,
    code: int,
    line: str,
    debug: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fail_with(monkeypatch, error)
    monkeypatch.setenv("FLASHRIB_DEBUG", "1" if debug else "0")
    assert main(["info", "model.onnx"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == line
    assert ("Traceback" in err) is (debug and code == 1)
    assert debug or err == line + "\n"


def run(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flashrib.runtime.cli", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ | environment)


def test_as_a_module(tmp_path: Path) -> None:
    result = run("info", str(write_onnx(tmp_path / "m.onnx")))
    assert (result.returncode, result.stderr) == (0, "")
    assert "sst-light" in result.stdout
    assert run("info", "nowhere").returncode == 1


def test_a_reader_that_stops_reading(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    result = run("info", str(write_onnx(tmp_path / "m.onnx")), stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_full_disk_behind_the_output(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        result = run("info", str(write_onnx(tmp_path / "m.onnx")), stdout=full.fileno())
    assert (result.returncode, result.stderr) == (1, "flashrib: error: No space left on device\n")


def test_names_that_the_terminal_cannot_show(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "Σ.onnx")
    result = run("info", str(path), PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")
    assert r"\u03a3.onnx" in result.stdout
