"""What users get wrong: every case ends in one line that names it, with the right exit code, and leaves nothing behind."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from flashrib.runtime.cli import main, options
from flashrib.runtime.errors import OutOfMemoryError
from tests.runtime.cli.bad_cases import CASES, upscale
from tests.runtime.cli.bad_files import Prepare
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.picture_files import noise
from tests.runtime.sessions.fakes import SmallMemorySession


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a picture and two good models, as the current one."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise(8, 9, 3)).save("picture.png")
    Image.fromarray(noise(100, 90, 3)).save("large.bmp")
    write_onnx(Path("model.onnx"))
    write_checkpoint(Path("model.safetensors"))


def snapshot() -> dict[str, bytes]:
    """All files and folders here with their contents."""
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in Path().rglob("*")}


def check(argv: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    before = snapshot()
    assert main(argv) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    assert re.match(f"flashrib: error: .*{message}.*\n", err), err
    assert "this is a bug" not in err
    assert snapshot() == before


@pytest.mark.parametrize(("prepare", "argv", "code", "message"), CASES.values(), ids=CASES.keys())
def test_bad_input(
    prepare: Prepare, argv: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare()
    check(argv, code, message, capfd)


@pytest.mark.parametrize("package", ["torch", "safetensors"])
@pytest.mark.parametrize(
    ("argv", "extra"),
    [
        (upscale(model="model.safetensors"), "torch"),
        (["info", "model.safetensors"], "torch"),
        (["train", "x.toml", "-o", "x"], "train"),
    ],
    ids=["upscale", "info", "train"],
)
def test_a_missing_package(
    package: str, argv: list[str], extra: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    check(argv, 1, rf"needs the package '{package}', which is not installed: pip install 'flashrib\[{extra}\]'", capfd)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemoryError, "picture.png: a tile of 9x8 pixels does not fit"),
        (MemoryError, "picture.png: a tile of 9x8 pixels does"),
    ],
)
def test_out_of_memory(
    error: type[Exception], message: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SmallMemorySession()
    session.error = error
    monkeypatch.setattr(options.SessionSpec, "open", lambda spec: session)
    check(upscale(), 1, message, capfd)


def test_a_folder_that_may_not_be_written_to(capfd: pytest.CaptureFixture[str]) -> None:
    Path("locked").mkdir(mode=0o500)
    if os.access("locked", os.W_OK):
        pytest.skip("nothing is denied to this user")
    check(upscale(out="locked/new/"), 1, "locked/new: cannot be written to: no permission for", capfd)


def test_a_full_disk() -> None:
    """A limit on the size of files fails in the same place, in the middle of writing."""
    before = snapshot()
    result = subprocess.run(
        [sys.executable, "-m", "flashrib.runtime.cli", *upscale(picture="large.bmp", out="new/")],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "flashrib: error: new/large.bmp: cannot be written: File too large\n"
    assert snapshot() == before
