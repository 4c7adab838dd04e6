"""Writes upscaled frames: one segment of a video as a file of its own, so that a job that was killed goes on at the last whole segment.

Segments are NUT files, which keep any time base exactly (Matroska rounds to milliseconds) and most codecs.
"""

import dataclasses
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from flashrib.runtime.errors import FlashribError
from flashrib.runtime.video.codecs import Codec
from flashrib.runtime.video.frames import Pixels, to_video_frame
from flashrib.runtime.video.info import VideoInfo, message_of, require_av

LEAD = 64
"""Seconds by which segments are late: NUT has no negative times, and the first frames are decoded before 0."""


def write_segment(
    path: Path,
    frames: Iterable[tuple[Pixels, int, int]],
    video: VideoInfo,
    codec: Codec,
    pixel_format: str,
    options: dict[str, str],
    sample_aspect_ratio: Fraction | None,
    pipe: bool = False,
) -> int:
    """Encode frames into a file.

    Args:
        path: the file; a name that is not used until it is whole is the caller's business.
        frames: (pixels, pts, duration) in the order in which they are shown, ticks of `video.time_base`.
        video: whose time base, matrix, range and tags the result gets.
        codec: row of the table.
        pixel_format: of the encoder.
        options: see `flashrib.runtime.video.codecs.options_of`.
        sample_aspect_ratio: of the result.
        pipe: write YUV4MPEG2, which holds pictures and their rate alone, in place of a segment.

    Returns:
        The number of frames.

    Raises:
        FlashribError: the encoder refuses the video, or the file cannot be written.
    """
    av = require_av()
    count, stream = 0, None
    if pipe:  # its head says the rate, which FFmpeg takes from the time base
        video = dataclasses.replace(video, time_base=1 / video.rate if video.rate else video.time_base)
    late = 0 if pipe else round(LEAD / video.time_base)
    try:
        with av.open(str(path), "w", format="yuv4mpegpipe" if pipe else codec.segment) as container:
            for pixels, pts, duration in frames:
                if stream is None:
                    stream = _stream(container, pixels, video, codec, pixel_format, options, sample_aspect_ratio)
                pts, duration = (count, 1) if pipe else (pts + late, duration)
                for packet in stream.encode(to_video_frame(pixels, video, pixel_format, pts, duration)):
                    container.mux(with_decoding_time(packet))
                count += 1
            for packet in stream.encode(None) if stream is not None else ():
                container.mux(with_decoding_time(packet))
    except (av.error.FFmpegError, OSError) as error:
        if pipe and isinstance(error, BrokenPipeError):
            raise  # whoever reads has had enough
        told = ", ".join(f"{name} {value}" for name, value in options.items()) or "none"
        raise FlashribError(
            f"codec {codec.name}: the encoder {codec.encoder} cannot write {path.name}; its options were {told}: {message_of(error)}"
        ) from error
    return count


def with_decoding_time(packet: Any) -> Any:
    """Return a packet of an encoder, with a decoding time that can be true; `join` gives all of them anew.

    x265 has not set it where a video ends after one or two frames, whose order is that in which they are shown: any number can stand
    there, and a container refuses it, or not.
    """
    if packet.pts is not None and not (
        packet.dts is not None and 0 <= packet.pts - packet.dts <= LEAD / packet.time_base
    ):
        packet.dts = packet.pts
    return packet


def _stream(
    container: Any,
    pixels: Pixels,
    video: VideoInfo,
    codec: Codec,
    pixel_format: str,
    options: dict[str, str],
    sample_aspect_ratio: Fraction | None,
) -> Any:
    av = require_av()
    stream = container.add_stream(codec.encoder, rate=video.rate or Fraction(1 / video.time_base), options=options)
    context = stream.codec_context
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt = pixel_format
    context.time_base = (
        video.time_base
    )  # that of the stream alone leaves the encoder at its rate, and times are rounded
    stream.time_base = video.time_base
    context.color_range, context.colorspace = video.range, video.matrix
    context.color_primaries, context.color_trc = video.primaries, video.transfer
    if sample_aspect_ratio:
        context.sample_aspect_ratio = sample_aspect_ratio
    context.flags |= av.codec.context.Flags.global_header
    context.thread_type = "AUTO"
    return stream
