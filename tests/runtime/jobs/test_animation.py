"""Animations and pages: every frame with its time, every page at its own size."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.errors import PictureError, SessionError
from flashrib.runtime.jobs.animation import upscale_animation
from flashrib.runtime.jobs.plan import plan_jobs
from flashrib.runtime.jobs.run import Options, run_jobs
from flashrib.runtime.pictures.animation import Animation, read_animation, read_frames, write_frames
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.sessions.protocol import Batch
from tests.runtime.sessions.fakes import FakeSession

DURATIONS = (100, 250, 40, 500)


def write_animation(path: Path, alpha: bool = False, loop: int = 3) -> list[Image.Image]:
    """Four frames of few colours: a square that moves; the third equals the second."""
    frames = []
    for place in (0, 4, 4, 9):
        pixels = np.zeros((20, 24, 4), np.uint8)
        pixels[..., 3] = 0 if alpha else 255
        pixels[5:12, place : place + 7] = (200, 30, 90, 255)
        frames.append(Image.fromarray(pixels) if alpha else Image.fromarray(pixels[..., :3].copy()))
    kind = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG"}[path.suffix]
    options: dict[str, Any] = {".gif": {"disposal": 2}, ".webp": {"lossless": True}, ".png": {"blend": 0}}[path.suffix]
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=DURATIONS, loop=loop, **options)
    return frames


def seen(path: Path) -> list[tuple[float, np.ndarray[Any, Any]]]:
    """What is shown, and how long; frames that look alike are one."""
    shown: list[tuple[float, np.ndarray[Any, Any]]] = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            pixels = np.asarray(image.convert("RGBA"))
            pixels = np.where(pixels[..., 3:] > 127, pixels, 0)
            duration = float(image.info["duration"])
            if shown and np.array_equal(shown[-1][1], pixels):
                shown[-1] = shown[-1][0] + duration, pixels
            else:
                shown.append((duration, pixels))
    return shown


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("target", ["webp", "png"])
@pytest.mark.parametrize("source", ["gif", "webp", "png"])
def test_frames_and_times(source: str, target: str, alpha: bool, tmp_path: Path) -> None:
    frames = write_animation(tmp_path / f"in.{source}", alpha)
    jobs = plan_jobs([str(tmp_path / f"in.{source}")], str(tmp_path / f"out.{target}"))
    (done,) = run_jobs(FakeSession(), jobs, Options())
    assert not isinstance(done, Exception), done
    assert (done.output_width, done.output_height) == (48, 40)
    shown = seen(tmp_path / f"out.{target}")
    assert [duration for duration, _ in shown] == [100, 290, 500]
    for (_, pixels), frame in zip(shown, (frames[0], frames[1], frames[3]), strict=True):
        wanted = np.asarray(frame.convert("RGBA")).repeat(2, 0).repeat(2, 1)
        wanted = np.where(wanted[..., 3:] > 127, wanted, 0)
        assert np.abs(pixels.astype(int) - wanted).max() <= (3 if source == "gif" else 0)
    with Image.open(tmp_path / f"out.{target}") as image:
        assert image.info["loop"] in (3, 4)  # a GIF counts repetitions


def test_equal_frames_are_computed_once(tmp_path: Path) -> None:
    write_animation(tmp_path / "in.png")
    session = FakeSession()
    animation = read_animation(tmp_path / "in.png")
    assert animation is not None
    upscale_animation(session, tmp_path / "in.png", tmp_path / "out.webp", animation)
    assert len(session.shapes) == 3


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_frames_are_decoded_and_encoded_while_the_device_works(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [Image.fromarray(np.full((20, 24, 3), 10 * number, np.uint8)) for number in range(6)]
    pages[0].save(tmp_path / f"in.{suffix}", save_all=True, append_images=pages[1:])
    third_read, third_computed = threading.Event(), threading.Event()

    class Waiting(FakeSession):
        def run(self, batch: Batch) -> Batch:
            assert third_read.wait(10), "it is read while the first is computed"
            result = super().run(batch)
            if len(self.shapes) == 3:
                third_computed.set()
            return result

    def read(path: Path, animation: Animation) -> Iterator[Picture]:
        for number, frame in enumerate(read_frames(path, animation)):
            yield frame
            if number == 1:
                third_read.set()

    def write(path: Path, frames: Iterator[Picture], *options: Any, **named: Any) -> tuple[str, ...]:
        def slowly() -> Iterator[Picture]:
            for frame in frames:
                assert third_computed.wait(10), "it is computed while the first is encoded"
                yield frame

        return write_frames(path, slowly(), *options, **named)

    monkeypatch.setattr("flashrib.runtime.jobs.animation.read_frames", read)
    monkeypatch.setattr("flashrib.runtime.jobs.animation.write_frames", write)
    progress: list[int] = []
    animation = read_animation(tmp_path / f"in.{suffix}")
    assert animation is not None
    target, source = tmp_path / f"out.{suffix}", tmp_path / f"in.{suffix}"
    upscale_animation(Waiting(), source, target, animation, progress=lambda done, total: progress.append(done))
    assert progress == sorted(progress)
    assert progress[-1] == 6000
    with Image.open(target) as image:
        assert list(colours(image)) == [10 * number for number in range(6)]


def colours(image: Image.Image) -> Iterator[int]:
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        yield int(np.asarray(image.convert("RGB"))[3, 3, 0])


@pytest.mark.parametrize("failing", ["network", "writing"])
def test_an_error_leaves_no_file(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_animation(tmp_path / "in.png")

    class Failing(FakeSession):
        def run(self, batch: Batch) -> Batch:
            if failing == "network" and len(self.shapes) == 1:
                raise SessionError("no more")
            return super().run(batch)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if failing == "writing":
        monkeypatch.setattr("PIL.Image.Image.save", full)
    animation = read_animation(tmp_path / "in.png")
    assert animation is not None
    with pytest.raises((SessionError, PictureError), match=r"no more|No space"):
        upscale_animation(Failing(), tmp_path / "in.png", tmp_path / "out.png", animation)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


def test_pages_of_their_own_size_and_depth(tmp_path: Path) -> None:
    pages = [
        Image.fromarray(np.full((20, 30, 3), (10, 200, 90), np.uint8)),
        Image.fromarray(np.arange(12 * 9, dtype=np.uint16).reshape(12, 9) * 500),
        Image.fromarray(np.full((8, 8), 77, np.uint8)),
    ]
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    jobs = plan_jobs([str(tmp_path / "in.tif")], str(tmp_path / "out.tif"))
    (done,) = run_jobs(FakeSession(), jobs, Options())
    assert not isinstance(done, Exception), done
    with Image.open(tmp_path / "out.tif") as image:
        assert image.n_frames == 3
        for number, page in enumerate(pages):
            image.seek(number)
            np.testing.assert_array_equal(np.asarray(image), np.asarray(page).repeat(2, 0).repeat(2, 1))


def test_what_cannot_hold_it_is_refused(tmp_path: Path) -> None:
    write_animation(tmp_path / "in.gif")
    animation = read_animation(tmp_path / "in.gif")
    assert animation is not None
    with pytest.raises(PictureError, match=r"does not hold an animation: use one of \.webp"):
        upscale_animation(FakeSession(), tmp_path / "in.gif", tmp_path / "out.jpg", animation)
    assert [path.name for path in tmp_path.iterdir()] == ["in.gif"]


def test_damage_leaves_nothing(tmp_path: Path) -> None:
    write_animation(tmp_path / "in.png")
    content = (tmp_path / "in.png").read_bytes()
    (tmp_path / "in.png").write_bytes(content[: len(content) * 2 // 3])
    jobs = plan_jobs([str(tmp_path / "in.png")], str(tmp_path / "out.png"))
    (done,) = run_jobs(FakeSession(), jobs, Options())
    assert isinstance(done, PictureError)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
