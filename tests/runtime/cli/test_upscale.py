"""`flashrib upscale`, with a model that repeats pixels."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.cli import main, options
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.picture_files import SRGB, noise
from tests.runtime.sessions.fakes import FakeSession, SmallMemorySession


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("model.onnx"))
    Path("in/sub").mkdir(parents=True)
    for name in ("in/a.png", "in/b.bmp", "in/sub/c.png"):
        write_picture(name, Picture(noise(len(name), 9, 3)))


def upscale(*arguments: str) -> int:
    return main(["upscale", *arguments, "--model", "model.onnx"])


def twice(path: str) -> np.ndarray:
    return read_picture(path).pixels.repeat(2, axis=0).repeat(2, axis=1)


def files(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_one_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale("in/a.png", "-o", "out.tif") == 0
    np.testing.assert_array_equal(read_picture("out.tif").pixels, twice("in/a.png"))
    out, err = capsys.readouterr()
    assert re.fullmatch(r"in/a\.png \(9x8\) -> out\.tif \(18x16\), \d+\.\d s\n", out)
    assert err == ""


@pytest.mark.parametrize("recursive", [[], ["-r"]], ids=["flat", "recursive"])
def test_a_folder(recursive: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale("in", "-o", "out/new", *recursive) == 0
    assert files("out/new") == ["a.png", "b.bmp", *(["sub/c.png"] if recursive else [])]
    for name in files("out/new"):
        np.testing.assert_array_equal(read_picture(f"out/new/{name}").pixels, twice(f"in/{name}"))
    assert capsys.readouterr().out.splitlines()[-1] == ("3 of 3" if recursive else "2 of 2") + " pictures upscaled"


def test_everything_that_belongs_to_a_picture() -> None:
    pixels, alpha = noise(8, 9, 3, dtype=np.uint16), noise(8, 9, dtype=np.uint16)
    alpha[0] = 65535
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    write_picture("full.png", Picture(pixels, alpha, icc=SRGB, exif=exif.tobytes()))
    assert upscale("full.png", "-o", "out.png") == 0
    result, source = read_picture("out.png"), read_picture("full.png")
    assert result.pixels.dtype == np.uint16
    assert result.alpha is not None
    np.testing.assert_array_equal(result.alpha, alpha.repeat(2, 0).repeat(2, 1))
    assert (result.icc, result.exif) == (source.icc, source.exif)


def test_bad_pictures_do_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/aa.png").write_bytes(b"no picture")
    Image.new("RGBA", (5, 5), (1, 2, 3, 4)).save("in/glass.jpg", format="png")
    Path("out").mkdir()
    Path("out/b.bmp").write_bytes(b"old")
    assert upscale("in", "-o", "out") == 1
    assert files("out") == [".flashrib-journal.jsonl", "a.png", "b.bmp"]
    assert Path("out/b.bmp").read_bytes() == b"old"
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "1 of 4 pictures upscaled, 3 failed"
    lines = err.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("flashrib: error: in/aa.png: is not a PNG")
    assert lines[1].startswith("flashrib: error: out/b.bmp: exists already")
    assert lines[2].startswith("flashrib: error: out/glass.jpg: JPEG cannot keep transparency")


def test_what_was_interrupted_can_be_taken_up_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert upscale("in/a.png", "-o", "out/") == 0
    assert upscale("in", "-o", "out") == 1
    assert files("out") == [".flashrib-journal.jsonl", "a.png", "b.bmp"]
    assert upscale("in", "-o", "out", "--overwrite") == 0
    assert files("out") == ["a.png", "b.bmp"]


def test_no_model_is_loaded_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out.png").touch()
    assert main(["upscale", "in/a.png", "-o", "out.png", "--model", "nowhere.onnx", "--json"]) == 1
    out, err = capsys.readouterr()
    assert "out.png: exists already" in err
    assert json.loads(out)["pictures"][0]["error"] in err


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/z.png").write_bytes(b"no picture")
    write_picture("in/large.png", Picture(noise(300, 200, 3)))
    assert upscale("in", "-o", "out", "--tile", "64", "--halo", "0", "--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert {key: document[key] for key in ("model", "session", "failed")} == {
        "model": "model.onnx",
        "session": "onnxruntime",
        "failed": 1,
    }
    _, _, large, bad = document["pictures"]
    assert 0 < large.pop("seconds") < 60
    assert large == {
        "input": "in/large.png",
        "output": "out/large.png",
        "width": 200,
        "height": 300,
        "output_width": 400,
        "output_height": 600,
        "tiles": 5 * 4,
        "lost": [],
        "earlier": False,
        "session": "onnxruntime",
    }
    assert bad.keys() == {"input", "output", "error"}
    assert bad["error"].startswith("in/z.png: is not a PNG")


def test_checkpoints_run_in_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint(Path("m.pth"))
    assert main(["upscale", "in/a.png", "-o", "out.png", "--model", "m.pth", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["session"] == "torch"
    assert read_picture("out.png").pixels.shape == (16, 18, 3)


@pytest.mark.parametrize(
    ("arguments", "largest", "several"),
    [
        (["--tile", "16", "--halo", "8"], (32, 32), True),
        (["--tile", "96x16", "--halo", "0"], (90, 16), True),
        (["--tile", "16x96", "--halo", "0"], (16, 40), True),
        ([], (90, 40), False),
    ],
)
def test_tiles(arguments: list[str], largest: tuple[int, int], several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession()
    monkeypatch.setattr(options.SessionSpec, "open", lambda spec: session)
    write_picture("p.png", Picture(noise(90, 40, 3)))
    assert upscale("p.png", "-o", "out.png", *arguments) == 0
    np.testing.assert_array_equal(read_picture("out.png").pixels, twice("p.png"))
    assert (max(height for height, _ in session.shapes), max(width for _, width in session.shapes)) == largest
    assert (len(session.shapes) > 1) is several


def test_quality() -> None:
    write_picture("p.png", Picture(noise(64, 64, 3)))
    for quality in (10, 90):
        assert upscale("p.png", "-o", f"{quality}.jpg", "--quality", str(quality)) == 0
    assert Path("10.jpg").stat().st_size < Path("90.jpg").stat().st_size / 2


def test_an_interruption_leaves_nothing_half_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SmallMemorySession()
    session.error = KeyboardInterrupt
    monkeypatch.setattr(options.SessionSpec, "open", lambda spec: session)
    assert upscale("in/a.png", "-o", "new/deep/") == 130
    assert capsys.readouterr() == ("", "flashrib: interrupted\n")
    assert not Path("new").exists()


def test_a_bar_on_a_terminal() -> None:
    command = [sys.executable, "-m", "flashrib.runtime.cli", "upscale", "in", "-o", "out", "--model", "model.onnx"]
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how the end shows
        while more := os.read(ours, 10_000):
            shown += more
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert re.search(r"b\.bmp: .*100%\|█+\| 00:\d\d < 00:00", shown.decode())
    assert out.count("\n") == 3
