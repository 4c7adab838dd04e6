"""Whole videos: everything but the pixels is kept, a killed job goes on, and what is impossible is said in one line."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime.errors import FlashribError, PictureError, UsageError
from flashrib.runtime.jobs.video import VideoOptions, upscale_video
from flashrib.runtime.video.frames import read_frames
from flashrib.runtime.video.info import open_input, video_info
from tests.runtime.video.videos import VARIABLE, write_video

av = pytest.importorskip("av")

HDR = {
    "codec": "libx265",
    "pixel_format": "yuv420p10le",
    "tags": (9, 16, 9, 1),
    "options": {"x265-params": "log-level=error"},
}


def twice(pixels: NDArray[Any]) -> NDArray[Any]:
    """A network of scale 2 that is easily predicted."""
    return pixels.repeat(2, 0).repeat(2, 1)


def double(frames: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """The network, two frames ahead."""
    waiting: list[NDArray[Any]] = []
    for pixels in frames:
        waiting.append(twice(pixels))
        if len(waiting) == 3:
            yield waiting.pop(0)
    yield from waiting


def frames(path: Path) -> list[NDArray[Any]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(streams) if p.pts is not None]


@pytest.mark.parametrize("suffix", ["mkv", "mov", "mp4"])
@pytest.mark.parametrize("segment", [3, 240])
def test_everything_else_is_kept(suffix: str, segment: int, tmp_path: Path) -> None:
    source, target = tmp_path / "in.mkv", tmp_path / f"out.{suffix}"
    write_video(source, ratio=Fraction(4, 3), extras=True, **HDR)
    report = upscale_video(source, target, double, 2, {}, VideoOptions(segment_frames=segment))
    assert times(target) == [Fraction(ms, 1000) for ms in VARIABLE]
    with av.open(str(source)) as before, av.open(str(target)) as after:
        one, other = before.streams.video[0].codec_context, after.streams.video[0].codec_context
        for name in ("pix_fmt", "color_primaries", "color_trc", "colorspace", "color_range", "sample_aspect_ratio"):
            assert getattr(one, name) == getattr(other, name), name
        assert (other.width, other.height) == (2 * one.width, 2 * one.height)
        chapters = [
            [(c["start"] * c["time_base"], c["metadata"]["title"]) for c in x.chapters()] for x in (before, after)
        ]
        assert chapters[0] == chapters[1] == [(0, "one"), (Fraction(240, 1000), "two")]
        assert after.metadata["title"] == "a video"
        languages = [stream.metadata.get("language") for stream in after.streams.audio]
        assert languages == ["eng", "ita"]
    sound = [[data for _, data in packets(path, "audio")] for path in (source, target)]
    assert sound[0] == sound[1]
    if suffix == "mkv":
        assert report.warnings == ()
        assert packets(source, "subtitle") == packets(target, "subtitle")
        assert report.copied == ("audio", "audio", "subtitle", "attachment")
    else:
        assert [w.split(":")[0] for w in report.warnings] == ["stream 3 (subtitle, srt)", "stream 4 (attachment)"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"in.mkv", "in.srt", f"out.{suffix}"})


def test_mastering_display_and_light_levels_of_hdr(tmp_path: Path) -> None:
    """As x265 writes them: in units of 0.00002 and 0.0001 cd/m2; a codec that does not take them says so."""
    display, light = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)", (1000, 400)
    told = f"log-level=error:hdr10=1:master-display={display}:max-cll={light[0]},{light[1]}"
    write_video(tmp_path / "in.mkv", **HDR | {"options": {"x265-params": told}})
    for codec in ("h265", "av1"):
        target = tmp_path / f"{codec}.mkv"
        report = upscale_video(tmp_path / "in.mkv", target, double, 2, {}, VideoOptions(codec=codec))
        assert report.warnings == ()
        with open_input(target) as container:
            first = next(read_frames(container, video_info(container, target)))
        assert first.mastering is not None
        seen, wanted = ([int(n) for n in re.findall(r"\d+", text)] for text in (first.mastering, display))
        steps = 0 if codec == "h265" else 2  # AV1 has steps of its own
        assert all(abs(one - other) <= steps for one, other in zip(seen, wanted, strict=True)), seen
        assert first.light == light
    report = upscale_video(tmp_path / "in.mkv", tmp_path / "x.mkv", double, 2, {}, VideoOptions(codec="ffv1"))
    assert "does not take HDR's mastering display" in report.warnings[0]


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "ffv1", "prores", "vp9"])
def test_every_codec_keeps_times(codec: str, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv")
    target = tmp_path / ("out.mov" if codec == "prores" else "out.mkv")
    upscale_video(tmp_path / "in.mkv", target, double, 2, {}, VideoOptions(codec=codec, segment_frames=4))
    assert times(target) == [Fraction(ms, 1000) for ms in VARIABLE]


def test_without_loss_the_pixels_are_those_of_the_network(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv", codec="ffv1", pixel_format="bgr0")
    upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {}, VideoOptions(codec="ffv1"))
    with av.open(str(tmp_path / "in.mkv")) as before, av.open(str(tmp_path / "out.mkv")) as after:
        for one, other in zip(before.decode(video=0), after.decode(video=0), strict=True):
            np.testing.assert_array_equal(twice(one.to_ndarray(format="rgb24")), other.to_ndarray(format="rgb24"))


def test_how_it_was_cut_makes_no_difference(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv")
    for size in (3, 240):
        options = VideoOptions(codec="ffv1", segment_frames=size)
        upscale_video(tmp_path / "in.mkv", tmp_path / f"{size}.mkv", double, 2, {}, options)
    for one, other in zip(frames(tmp_path / "3.mkv"), frames(tmp_path / "240.mkv"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_frames_are_computed_once(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv", same=True, codec="ffv1")
    report = upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {})
    assert (report.frames, report.upscaled) == (len(VARIABLE), 1)


def test_part_and_preview(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv", extras=True)
    options = VideoOptions(start=Fraction(2, 10), end=Fraction(4, 10), preview=True)
    report = upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {}, options)
    assert (report.frames, report.width, report.height) == (4, 256, 96)
    assert times(tmp_path / "out.mkv") == [0, Fraction(40, 1000), Fraction(133, 1000), Fraction(173, 1000)]
    assert all(0 <= at < Fraction(2, 10) for at, _ in packets(tmp_path / "out.mkv", "audio"))


def test_a_broken_run_goes_on(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    write_video(source)
    options = VideoOptions(segment_frames=3)
    calls = 0

    def breaks(frames: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        nonlocal calls
        for pixels in frames:
            calls += 1
            if calls > 7:
                raise FlashribError("the power went")
            yield twice(pixels)

    with pytest.raises(FlashribError, match="the power went"):
        upscale_video(source, target, breaks, 2, {"model": 1}, options)
    assert not target.exists()
    report = upscale_video(source, target, double, 2, {"model": 1}, options)
    assert (report.resumed, report.upscaled) == (6, 4)
    upscale_video(source, tmp_path / "whole.mkv", double, 2, {"model": 1}, options)
    assert target.read_bytes()[200:] == (tmp_path / "whole.mkv").read_bytes()[200:] or all(
        np.array_equal(a, b) for a, b in zip(frames(target), frames(tmp_path / "whole.mkv"), strict=True)
    )


def test_another_model_begins_again(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    write_video(source)

    def breaks(frames: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_video(source, target, breaks, 2, {"model": 1}, VideoOptions(segment_frames=3))
    report = upscale_video(source, target, double, 2, {"model": 2}, VideoOptions(segment_frames=3))
    assert report.resumed == 0


KILLED = """
import sys, time
from pathlib import Path
from flashrib.runtime.jobs.video import VideoOptions, upscale_video
def slow(frames):
    for pixels in frames:
        time.sleep(0.03)
        yield pixels.repeat(2, 0).repeat(2, 1)
upscale_video(Path("in.mkv"), Path("out.mkv"), slow, 2, {}, VideoOptions(codec="ffv1", segment_frames=4))
"""


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """SIGKILL, five times; the result is that of a run that nobody killed."""
    write_video(tmp_path / "in.mkv", times=tuple(range(0, 1600, 40)))
    generator = np.random.default_rng(4)
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", KILLED], cwd=tmp_path)
        time.sleep(0.5 + generator.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(
        [sys.executable, "-c", KILLED], cwd=tmp_path, capture_output=True
    )  # fails where the result is whole already
    upscale_video(
        tmp_path / "in.mkv", tmp_path / "whole.mkv", double, 2, {}, VideoOptions(codec="ffv1", segment_frames=4)
    )
    assert times(tmp_path / "out.mkv") == times(tmp_path / "whole.mkv")
    for one, other in zip(frames(tmp_path / "out.mkv"), frames(tmp_path / "whole.mkv"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not (tmp_path / "out.mkv.parts").exists()


def test_what_the_encoder_refuses_leaves_nothing(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv")
    with pytest.raises(FlashribError, match="h264: the encoder libx264 cannot write"):
        upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {}, VideoOptions("h264", preset="no-such"))
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_killed_just_before_the_end(tmp_path: Path) -> None:
    """The result has its name and the segments are still there: they go, and the result stays."""
    write_video(tmp_path / "in.mkv")
    (tmp_path / "out.mkv.parts").mkdir()
    (tmp_path / "out.mkv.parts" / "job.json").touch()
    (tmp_path / "out.mkv").write_text("whole")
    with pytest.raises(UsageError, match="exists"):
        upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {})
    assert not (tmp_path / "out.mkv.parts").exists()
    assert (tmp_path / "out.mkv").read_text() == "whole"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (VideoOptions(codec="prores", crf=3), "has no --crf"),
        (VideoOptions(crf=60), "takes a --crf of 0"),
        (VideoOptions(codec="ffv1", preset="slow"), "has no --preset"),
        (VideoOptions(codec="mpeg2"), "unknown codec"),
        (VideoOptions(start=Fraction(2), end=Fraction(1)), "is not before"),
        (VideoOptions(start=Fraction(2)), "no frame between"),
    ],
)
def test_options_that_are_invalid(options: VideoOptions, says: str, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv")
    with pytest.raises((UsageError, PictureError), match=says):
        upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {}, options)
    assert not (tmp_path / "out.mkv").exists()
    with pytest.raises(FlashribError, match="preset"):
        upscale_video(
            tmp_path / "in.mkv", tmp_path / "x.mkv", double, 2, {}, VideoOptions(codec="h264", preset="nonsense")
        )


def test_a_result_is_not_replaced_unasked(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv")
    (tmp_path / "out.mkv").write_text("mine")
    with pytest.raises(UsageError, match="--overwrite"):
        upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {})
    assert (tmp_path / "out.mkv").read_text() == "mine"


def test_two_processes_do_not_write_the_same(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv")

    def inside(frames: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        with pytest.raises(FlashribError, match="another process"):
            upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {})
        return double(frames)

    upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", inside, 2, {})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pipes as a shell makes them")
def test_pipes(tmp_path: Path) -> None:
    """YUV4MPEG2 out, and in again through standard input."""
    write_video(tmp_path / "in.mkv", times=tuple(range(0, 200, 40)))
    script = (
        "import sys\nfrom pathlib import Path\nfrom flashrib.runtime.jobs.video import upscale_video\n"
        "upscale_video(Path(sys.argv[1]), Path('-'), lambda f: (p.repeat(2, 0).repeat(2, 1) for p in f), 2, {})\n"
    )
    first = subprocess.run([sys.executable, "-c", script, "in.mkv"], cwd=tmp_path, capture_output=True, check=True)
    assert first.stdout.startswith(b"YUV4MPEG2 W128 H96 F25:1 ")
    second = subprocess.run(
        [sys.executable, "-c", script, "-"], cwd=tmp_path, input=first.stdout, capture_output=True, check=True
    )
    (tmp_path / "out.y4m").write_bytes(second.stdout)
    assert [frame.shape for frame in frames(tmp_path / "out.y4m")] == [(3, 192, 256)] * 5  # 4:4:4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="pipes as a shell makes them")
def test_a_reader_who_stops(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv")
    reading, writing = os.pipe()
    os.close(reading)
    kept = os.dup(1)
    try:
        os.dup2(writing, 1)
        with pytest.raises(BrokenPipeError):
            upscale_video(tmp_path / "in.mkv", Path("-"), double, 2, {})
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(writing)


def test_avi_has_no_times_but_keeps_the_order(tmp_path: Path) -> None:
    write_video(tmp_path / "in.avi", times=tuple(range(0, 480, 40)), codec="mjpeg", pixel_format="yuvj420p")
    upscale_video(tmp_path / "in.avi", tmp_path / "out.avi", double, 2, {})
    assert times(tmp_path / "out.avi") == sorted(times(tmp_path / "out.avi"))


def test_transparency_is_not_kept(tmp_path: Path) -> None:
    write_video(tmp_path / "in.mkv", codec="ffv1", pixel_format="bgra", tags=(1, 1, 0, 2))
    report = upscale_video(tmp_path / "in.mkv", tmp_path / "out.mkv", double, 2, {}, VideoOptions("ffv1"))
    assert report.warnings == ("transparency, where there is any, is not kept",)
