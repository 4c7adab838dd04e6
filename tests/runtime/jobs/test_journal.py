"""Batches that are killed go on; machines that share a folder make each picture once."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.cli import main
from flashrib.runtime.errors import FlashribError
from flashrib.runtime.jobs.journal import Journal, opened, shard
from tests.places import ROOT
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("model.onnx"))
    Path("in").mkdir()


def write_pictures(count: int, broken: int = 0) -> None:
    for number in range(count):
        path = Path(f"in/{number:03}.png")
        if number < broken:
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(noise(6 + number % 5, 7, 3)).save(path)


def upscale(*arguments: str) -> int:
    return main(["upscale", "in", "-o", "out", "--model", "model.onnx", *arguments])


def test_a_later_run_makes_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(6, broken=2)
    assert upscale("--json") == 1
    assert json.loads(capsys.readouterr().out)["failed"] == 2
    before = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    Image.fromarray(noise(5, 5, 3)).save("in/001.png")
    Path("in/004.png").write_bytes(Path("in/005.png").read_bytes())  # another picture of the same name is made again
    assert upscale("--json") == 1
    document = json.loads(capsys.readouterr().out)
    assert [picture.get("earlier") for picture in document["pictures"]] == [None, False, True, True, False, True]
    after = {path.name: path.stat().st_mtime_ns for path in Path("out").glob("*.png")}
    assert len(after) == 5
    assert before["005.png"] == after["005.png"]


def test_other_errors_are_not_those_of_the_journal() -> None:
    with pytest.raises(BrokenPipeError), opened(Path("in"), {}):
        raise BrokenPipeError


class FullFile(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_journal_that_cannot_be_written() -> None:
    journal = Journal(Path("in/journal"), FullFile(), set(), {})
    with pytest.raises(FlashribError, match="in/journal: cannot be written: No space left on device"):
        journal.begin(Path("in/000.png"))


def test_another_quality_is_another_batch(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(3, broken=1)
    assert upscale() == 1
    assert upscale("--tile", "64") == 1
    assert "exists already" in capsys.readouterr().err


def test_what_somebody_else_wrote_stays(capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(2)
    Path("out").mkdir()
    Path("out/000.png").write_bytes(b"mine")
    assert upscale() == 1
    assert upscale() == 1
    assert Path("out/000.png").read_bytes() == b"mine"


def test_a_result_that_was_begun_is_ours() -> None:
    """Killed between the result's name and the journal's line, or before."""
    Path("out").mkdir()
    target = Path("out/a.png")
    with opened(Path("out"), {}) as journal:
        journal.finish(Path("model.onnx"), Path("out/other.png"), (1, 1, 2, 2))  # keeps the journal
        journal.begin(target)
        target.write_bytes(b"half")
    with opened(Path("out"), {}) as journal:
        assert journal.is_ours(target)
        assert journal.done(Path("model.onnx"), target) is None


def test_a_line_that_was_cut_off_is_not_read() -> None:
    Path("out").mkdir()
    with opened(Path("out"), {}) as journal:
        journal.finish(Path("model.onnx"), Path("out/a.png"), (1, 1, 2, 2))
    (path,) = Path("out").glob(".flashrib-journal*")
    path.write_text(path.read_text() + '{"done": "b.png", "si')
    Path("out/a.png").touch()
    with opened(Path("out"), {}) as journal:
        assert journal.done(Path("model.onnx"), Path("out/a.png")) == (1, 1, 2, 2)


def test_two_processes_do_not_write_the_same() -> None:
    Path("out").mkdir()
    with (
        opened(Path("out"), {}),
        pytest.raises(FlashribError, match="another process"),
        opened(Path("out"), {}),
    ):
        pass
    with opened(Path("out"), {}, "-1of2"), opened(Path("out"), {}, "-2of2"):
        pass


def test_shards_are_a_partition() -> None:
    names = [Path(f"{number}.png") for number in range(500)]
    shares = np.array([shard(names, number, 4) for number in (1, 2, 3, 4)])
    assert (shares.sum(0) == 1).all()
    assert shares.sum(1).min() > 90


def test_shards_make_the_same_files() -> None:
    write_pictures(8)
    assert main(["upscale", "in", "-o", "whole", "--model", "model.onnx"]) == 0
    for number in ("1/3", "2/3", "3/3"):
        assert upscale("--shard", number) == 0
    for path in Path("whole").iterdir():
        assert path.read_bytes() == Path("out", path.name).read_bytes()
    assert sorted(os.listdir("whole")) == sorted(os.listdir("out"))


@pytest.mark.slow
def test_killed_three_times() -> None:
    """60 pictures, 5 of them broken: 55 right results, each made once, 5 reported."""
    write_pictures(60, broken=5)
    code = (
        "import time\nfrom flashrib.runtime.tiling import upscale as module\n"
        "from flashrib.runtime.jobs import picture\nfrom flashrib.runtime.cli import main\nimport sys\n"
        "real = picture.upscale_array\n"
        "def slow(*a, **k):\n    time.sleep(0.04)\n    open('made', 'a').write('x')\n    return real(*a, **k)\n"
        "picture.upscale_array = slow\n"
        "sys.exit(main(['upscale', 'in', '-o', 'out', '--model', 'model.onnx', '--json']))\n"
    )
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for number in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
        deadline = time.monotonic() + 60
        while len(list(Path("out").glob("*.png"))) < 8 * (number + 1) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    document = json.loads(done.stdout)
    assert document["failed"] == 5
    assert len(list(Path("out").glob("*.png"))) == 55
    assert sum(bool(picture.get("earlier")) for picture in document["pictures"]) >= 24
    assert 55 <= len(Path("made").read_text()) <= 55 + 3  # what was in work when it was killed is made again
    assert not list(Path("out").glob("*.part"))
