"""Segments: times that an encoder did not set do not get into a file."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from flashrib.runtime.video.codecs import codec_named, options_of, pixel_format
from flashrib.runtime.video.frames import to_video_frame
from flashrib.runtime.video.info import open_input, video_info
from flashrib.runtime.video.segments import LEAD, with_decoding_time, write_segment
from tests.runtime.video.videos import write_video

av = pytest.importorskip("av")


@pytest.mark.parametrize(
    ("dts", "becomes"),
    [(64000, 64000), (64533, 64533), (None, 64533), (64534, 64533), (-94803555590379, 64533), (94803555590379, 64533)],
)
def test_times_that_cannot_be_true(dts: int | None, becomes: int) -> None:
    packet = av.Packet(8)
    packet.pts, packet.dts, packet.time_base = 64533, dts, Fraction(1, 1000)
    assert with_decoding_time(packet).dts == becomes


@pytest.mark.parametrize("count", [1, 2])
def test_segments_of_few_frames(count: int, tmp_path: Path) -> None:
    """x265 leaves their decoding times to chance, about once in fifty."""
    write_video(tmp_path / "in.mkv")
    with open_input(tmp_path / "in.mkv") as container:
        video = video_info(container, tmp_path / "in.mkv")
    codec = codec_named("h265", ".mkv")
    chosen, _ = pixel_format(codec, video)
    frames = [(np.zeros((48, 64, 3), np.uint8), 40 * number, 40) for number in range(count)]
    assert to_video_frame(frames[0][0], video, chosen, 0).format.name == chosen
    for _ in range(60):
        write_segment(tmp_path / "s.nut", frames, video, codec, chosen, options_of(codec, None, None, None, None), None)
        with av.open(str(tmp_path / "s.nut")) as written:
            seen = [packet.pts * packet.time_base for packet in written.demux(video=0) if packet.pts is not None]
        assert seen == [LEAD + Fraction(40 * number, 1000) for number in range(count)]
