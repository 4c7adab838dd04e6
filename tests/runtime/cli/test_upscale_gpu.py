"""`flashrib upscale` with a session that runs ahead: pictures are read and written while others are upscaled."""

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashrib.runtime.cli import main, upscale
from flashrib.runtime.jobs import run
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from tests.runtime.sessions.fakes import BlurredWindowSession
from tests.runtime.tiling.test_run import Spread, Worker
from tests.runtime.tiling.test_upscale import noise


@pytest.fixture(autouse=True)
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spread:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    for index in range(6):
        write_picture(f"in/{index}.png", Picture(noise(20 + index, 30, 3)))
    Path("m.pth").touch()
    session = Spread([Worker(BlurredWindowSession())])
    monkeypatch.setattr(upscale, "open_chosen", lambda _: (session, Path("m.pth"), "torch"))
    return session


def test_a_folder_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/2.png").write_bytes(b"no picture")
    assert main(["upscale", "in", "-o", "out/new"]) == 1
    out, err = capsys.readouterr()
    assert re.findall(r"^in/(\d)\.png", out, re.MULTILINE) == ["0", "1", "3", "4", "5"]
    assert err.startswith("flashrib: error: in/2.png: is not a PNG")
    assert out.splitlines()[-1] == "5 of 6 pictures upscaled, 1 failed"
    for index in (0, 1, 3, 4, 5):
        one = BlurredWindowSession()
        wanted = run.upscale_picture(one, read_picture(f"in/{index}.png")).pixels
        np.testing.assert_array_equal(read_picture(f"out/new/{index}.png").pixels, wanted)


def test_a_picture_is_written_while_the_next_is_upscaled(session: Spread, monkeypatch: pytest.MonkeyPatch) -> None:
    next_one = threading.Event()
    write, submit = run.write_picture, Worker.submit

    def waiting(target: Path, *arguments: Any, **options: Any) -> tuple[str, ...]:
        if target.name == "0.png":
            assert next_one.wait(10)
        return write(target, *arguments, **options)

    def noticing(self: Worker, pixels: Any, *arguments: Any) -> None:
        if pixels.shape[0] == 21:  # that of 1.png
            next_one.set()
        submit(self, pixels, *arguments)

    monkeypatch.setattr(run, "write_picture", waiting)
    monkeypatch.setattr(Worker, "submit", noticing)
    assert main(["upscale", "in", "-o", "out"]) == 0
    assert len(list(Path("out").iterdir())) == 6


def test_one_picture_at_a_time_is_upscaled(session: Spread, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, upscale_picture = threading.Lock(), run.upscale_picture

    def alone(*arguments: Any, **options: Any) -> Picture:
        assert busy.acquire(blocking=False)
        try:
            return upscale_picture(*arguments, **options)
        finally:
            busy.release()

    monkeypatch.setattr(run, "upscale_picture", alone)
    assert main(["upscale", "in", "-o", "out"]) == 0


def test_ctrl_c_leaves_whole_pictures_alone(session: Spread, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(40):
        write_picture(f"in/more{index}.png", Picture(noise(30, 30, 3)))

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(upscale, "print_line", interrupt)
    assert main(["upscale", "in", "-o", "out"]) == 130
    written = sorted(path for path in Path("out").iterdir() if path.name != ".flashrib-journal.jsonl")
    assert 1 <= len(written) < 40
    for path in written:
        assert path.suffix == ".png"
        read_picture(path)


def test_a_folder_without_results_vanishes() -> None:
    for path in Path("in").iterdir():
        path.write_bytes(b"no picture")
    assert main(["upscale", "in", "-o", "out/new"]) == 1
    assert not Path("out").exists()
