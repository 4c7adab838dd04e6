"""`flashrib upscale` with a session that runs ahead: pictures are read and written while others are upscaled."""

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.cli import main, upscale
from flashrib.runtime.errors import SessionError
from flashrib.runtime.jobs import overlapped, picture
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.tiling.upscale import upscale_picture
from tests.runtime.sessions.fakes import BlurredWindowSession
from tests.runtime.tiling.test_run import Failing, Mortal, Spread, Worker
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
        wanted = upscale_picture(one, read_picture(f"in/{index}.png")).pixels
        np.testing.assert_array_equal(read_picture(f"out/new/{index}.png").pixels, wanted)


def test_a_picture_is_written_while_the_next_is_upscaled(session: Spread, monkeypatch: pytest.MonkeyPatch) -> None:
    next_one = threading.Event()
    write, submit = picture.write_picture, Worker.submit

    def waiting(target: Path, *arguments: Any, **options: Any) -> tuple[str, ...]:
        if target.name == "0.png":
            assert next_one.wait(10)
        return write(target, *arguments, **options)

    def noticing(self: Worker, pixels: Any, *arguments: Any) -> None:
        if pixels.shape[0] == 21:  # that of 1.png
            next_one.set()
        submit(self, pixels, *arguments)

    monkeypatch.setattr(picture, "write_picture", waiting)
    monkeypatch.setattr(Worker, "submit", noticing)
    assert main(["upscale", "in", "-o", "out"]) == 0
    assert len(list(Path("out").iterdir())) == 6


def test_pictures_of_several_kinds_and_sizes(session: Spread, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gray, alpha and an animation between others: each the same as alone, each once, in a few at a time."""
    alpha, gray = noise(40, 44, 3), noise(33, 20, 3)
    write_picture("in/1a.png", Picture(alpha, alpha=alpha[..., 0]))
    write_picture("in/1b.png", Picture(np.repeat(gray[..., :1], 3, axis=2), gray=True))
    frames = [Image.fromarray(noise(16, 16, 3)) for _ in range(3)]
    frames[0].save("in/3a.webp", save_all=True, append_images=frames[1:], duration=50, lossless=True)
    monkeypatch.setattr(overlapped, "MOST_PICTURES", 5)
    assert main(["upscale", "in", "-o", "out"]) == 0
    monkeypatch.setattr(Worker, "ahead", 1)
    assert main(["upscale", "in", "-o", "alone"]) == 0
    for path in Path("alone").iterdir():
        assert path.read_bytes() == (Path("out") / path.name).read_bytes()
    assert len(list(Path("out").iterdir())) == 9


def test_a_picture_that_fails_on_the_device(
    session: Spread, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that were in work beside it are done again, and the journal goes on."""
    submit = Worker.submit

    def failing(self: Worker, pixels: Any, *arguments: Any) -> None:
        if pixels.shape[0] == 22:  # that of 2.png
            raise SessionError("NaN")
        submit(self, pixels, *arguments)

    monkeypatch.setattr(Worker, "submit", failing)
    assert main(["upscale", "in", "-o", "out"]) == 1
    out, err = capsys.readouterr()
    assert err == "flashrib: error: in/2.png: NaN\n"
    assert re.findall(r"^in/(\d)\.png", out, re.MULTILINE) == ["0", "1", "3", "4", "5"]
    monkeypatch.setattr(Worker, "submit", submit)
    assert main(["upscale", "in", "-o", "out"]) == 0
    assert "6 of 6 pictures upscaled, 5 of them by an earlier run" in capsys.readouterr().out


def test_a_device_that_fails_for_good_ends_the_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, not one for each picture that is left; a second run does the rest."""
    broken = Mortal([Failing(BlurredWindowSession(), "collect", 3)])
    monkeypatch.setattr(upscale, "open_chosen", lambda _: (broken, Path("m.pth"), "torch"))
    assert main(["upscale", "in", "-o", "out"]) == 1
    assert capsys.readouterr().err == "flashrib: error: unspecified launch failure\n"
    whole = Spread([Worker(BlurredWindowSession())])
    monkeypatch.setattr(upscale, "open_chosen", lambda _: (whole, Path("m.pth"), "torch"))
    assert main(["upscale", "in", "-o", "out"]) == 0
    assert re.search(r"6 of 6 pictures upscaled, [1-3] of them by an earlier run", capsys.readouterr().out)


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
