"""Frames to pixels and back: every pixel format of the table in docs/video.md, all matrices and ranges."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashrib.runtime.errors import PictureError
from flashrib.runtime.video.codecs import CODECS, codec_named, pixel_format
from flashrib.runtime.video.frames import read_frames, to_video_frame
from flashrib.runtime.video.info import VideoInfo, open_input, video_info
from tests.runtime.video.videos import VARIABLE, ramp, write_video

av = pytest.importorskip("av")

FORMATS = (
    "yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p12le", "yuv422p12le",
    "yuv444p12le", "gray", "gray10le", "gray12le", "gbrp", "gbrp10le", "gbrp12le", "nv12", "p010le", "bgr0", "rgb24", "rgb48le",
)  # fmt: skip


def info(name: str, matrix: int, full: bool) -> VideoInfo:
    form = av.VideoFormat(name)
    components = form.components
    return VideoInfo(
        Path("v"), 48, 32, name, max(c.bits for c in components), len(components) == 1, None, Fraction(1, 1000), None, 0, "",
        2 if full else 1, 1, 1, matrix,
    )  # fmt: skip


def planes(frame: Any) -> list[np.ndarray[Any, Any]]:
    """The samples of a frame without the bytes that pad its lines."""
    result = []
    for plane in frame.planes:
        wide = max(c.bits for c in frame.format.components) > 8
        samples = np.frombuffer(bytes(plane), np.uint16 if wide else np.uint8).reshape(plane.height, -1)
        packed = samples.shape[1] * (2 if wide else 1) // max(1, plane.width)
        result.append(samples[:, : plane.width * packed // (2 if wide else 1)].astype(int))
    return result


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (9, False), (1, True)])
def test_there_and_back(name: str, matrix: int, full: bool) -> None:
    """One step of the format's own depth at most, two at 12 bits; chroma that is sampled down and up again half a step of 8 bits."""
    video = info(name, matrix, full)
    pixels = ramp(32, 48, 0, video.bits > 8)
    first = to_video_frame(pixels[..., 0] if video.gray else pixels, video, name, 0)
    assert first.format.name == name
    from flashrib.runtime.video.frames import _frame

    seen = _frame(first, video)
    assert seen.pixels.dtype == (np.uint16 if video.bits > 8 else np.uint8)
    again = to_video_frame(seen.pixels, video, name, 0)
    most = 2 if video.bits == 12 else 1
    coarse = not first.format.is_rgb and not video.gray and first.format.chroma_width(16) < 16
    shift = 6 if name == "p010le" else 0
    for number, (one, other) in enumerate(zip(planes(first), planes(again), strict=True)):
        bound = max(most, 2 ** (video.bits - 9)) if coarse and number else most
        assert np.abs((one >> shift) - (other >> shift)).max() <= bound


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (9, False), (1, True)])
def test_colours_are_those_of_the_standard(matrix: int, full: bool) -> None:
    """A flat colour against the formulas of BT.709, BT.601 and BT.2020 (H.273, section 8.3), at 10 bits."""
    kr, kb = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    r, g, b = 0.8, 0.3, 0.1
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    wanted = [y * 1023, cb * 1023 + 512, cr * 1023 + 512] if full else [y * 876 + 64, cb * 896 + 512, cr * 896 + 512]
    pixels = np.broadcast_to(np.rint(np.array([r, g, b]) * 65535).astype(np.uint16), (32, 48, 3))
    frame = to_video_frame(pixels, info("yuv444p10le", matrix, full), "yuv444p10le", 0)
    np.testing.assert_allclose([plane[5, 5] for plane in planes(frame)], wanted, atol=1.01)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "mkv"), ("libx264", "mp4"), ("ffv1", "mkv")])
def test_times_and_colours_of_a_file(codec: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"v.{suffix}"
    write_video(path, codec=codec)
    with open_input(path) as container:
        video = video_info(container, path)
        frames = list(read_frames(container, video))
    assert [frame.pts * video.time_base for frame in frames] == [Fraction(time, 1000) for time in VARIABLE]
    for number, frame in enumerate(frames):
        assert np.abs(frame.pixels.astype(int) - ramp(48, 64, number, False)).mean() < 4


def test_start_and_end(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mkv")
    with open_input(tmp_path / "v.mkv") as container:
        video = video_info(container, tmp_path / "v.mkv")
        found = [f.pts for f in read_frames(container, video, Fraction(2, 10), Fraction(4, 10))]
    assert found == [200, 240, 333, 373]


def test_no_video(tmp_path: Path) -> None:
    (tmp_path / "v.mkv").write_bytes(b"nothing of the kind")
    with pytest.raises(PictureError, match="cannot be read as a video"):
        open_input(tmp_path / "v.mkv")
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        sound: Any = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 80), np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux(sound.encode(samples))
    with pytest.raises(PictureError, match="no video in it"):
        open_input(tmp_path / "a.wav")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "ffv1", "prores", "vp9"])
def test_the_format_that_keeps_most(codec: str, name: str) -> None:
    """What is lost is said, and nothing else is lost."""
    video = info(name, 1, False)
    try:
        chosen, lost = pixel_format(codec_named(codec, ".mkv"), video)
    except Exception as error:
        pytest.skip(f"this FFmpeg has no such encoder: {error}")
    source, target = av.VideoFormat(name), av.VideoFormat(chosen)
    bits = max(c.bits for c in target.components)
    assert (bits < video.bits) == ("bit" in (lost or ""))
    if not video.gray and not source.is_rgb and not target.is_rgb:
        coarser = target.chroma_width(16) < source.chroma_width(16) or target.chroma_height(16) < source.chroma_height(
            16
        )
        assert coarser == ("chroma" in (lost or ""))


def test_every_codec_is_known_to_ffmpeg() -> None:
    """At least the software encoders are in PyAV's wheels."""
    missing = [
        codec.name for codec in CODECS if "nvenc" not in codec.encoder and codec.encoder not in av.codecs_available
    ]
    assert missing == []
