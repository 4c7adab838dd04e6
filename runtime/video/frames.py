"""Between the frames of a video and arrays of pixels.

The matrix and the range are the video's in both directions and nothing else is converted: a video in PQ or BT.2020 goes through the
network as it is coded, and comes out as it came. With these settings of swscale a frame that goes to RGB and back has changed by one
step of its own depth at most, two at 12 bits; chroma that is sampled down and up again by half a step of 8 bits (a test holds every
format).

swscale's white at 16 bits is 255 * 256 and not 65535, in both directions; and what it makes of a full range ends at the largest number
of the depth, moved up. Both are corrected by a table.
"""

import dataclasses
import functools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import PictureError
from flashrib.runtime.video.info import VideoInfo, message_of, picture_stream, require_av

Pixels = NDArray[Any]

# swscale: bicubic chroma at full horizontal resolution in both directions, exact rounding, the same bits on every processor.
_FLAGS = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
_WHITE = 255 * 256


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        pixels: (H, W, 3) RGB or (H, W) gray, uint8, or uint16 for videos of more than 8 bits.
        pts: when it is shown, in ticks of the video's time base.
        duration: how long, in ticks; 0: unknown.
        rotation: degrees by which a player turns it, counterclockwise.
        interlaced: True where it holds two half pictures.
        mastering: HDR's mastering display as x265 writes it ("G(13250,34500)B(...)..."), or None.
        light: HDR's largest and mean content light level in cd/m2, or None.
    """

    pixels: Pixels
    pts: int
    duration: int
    rotation: int = 0
    interlaced: bool = False
    mastering: str | None = None
    light: tuple[int, int] | None = None


def read_frames(
    container: Any, video: VideoInfo, start: Fraction | None = None, end: Fraction | None = None
) -> Iterator[Frame]:
    """Yield the frames of a video in the order in which they are shown.

    Args:
        container: what `flashrib.runtime.video.info.open_input` returned.
        video: what `video_info` says about it.
        start: seconds of the first frame to yield; None: from the beginning.
        end: seconds before which the last one begins; None: to the end.

    Raises:
        PictureError: the video is damaged, or a frame has no time.
    """
    av = require_av()
    stream = picture_stream(container)
    stream.thread_type = "AUTO"
    count, last = 0, None
    try:
        for frame in container.decode(stream):
            if frame.pts is None:
                raise PictureError(
                    f"{video.path}: frame {count} has no time; remux the video with ffmpeg -fflags +genpts"
                )
            seconds = frame.pts * video.time_base
            if end is not None and seconds >= end:
                return
            count += 1
            if start is not None and seconds < start:
                continue
            if last is not None and frame.pts <= last:
                continue  # a frame shown at the same time as the one before is never seen
            last = frame.pts
            yield _frame(frame, video)
    except av.error.FFmpegError as error:
        raise PictureError(f"{video.path}: is damaged after frame {count}: {message_of(error)}") from error


def to_video_frame(pixels: Pixels, video: VideoInfo, pixel_format: str, pts: int, duration: int = 0) -> Any:
    """Return upscaled pixels as a frame in a pixel format of the encoder, tagged as the video is.

    Args:
        pixels: as `Frame.pixels`.
        video: whose matrix, range and tags the frame gets.
        pixel_format: FFmpeg's name, "yuv420p10le".
        pts: when it is shown, in ticks of the video's time base.
        duration: how long, in ticks; 0: unknown.
    """
    colour = not pixel_format.startswith(("gbr", "rgb", "bgr", "gray"))
    if colour and pixels.dtype == np.uint16 and not video.gray:
        pixels = _table(65535, _WHITE)[pixels]
    frame = _as_frame(pixels, video.array_format)
    if frame.format.name != pixel_format:
        frame = _reformatter().reformat(
            frame,
            format=pixel_format,
            dst_colorspace=video.swscale_matrix if colour else None,
            src_color_range=2,
            dst_color_range=video.swscale_range if colour or video.gray else 2,
            interpolation=_FLAGS,
        )
    frame.pts, frame.time_base, frame.duration = pts, video.time_base, duration
    frame.color_range, frame.colorspace = video.range, video.matrix
    frame.color_primaries, frame.color_trc = video.primaries, video.transfer
    return frame


def _frame(frame: Any, video: VideoInfo) -> Frame:
    rgb = frame.format.name.startswith(("gbr", "rgb", "bgr"))
    converted = frame
    if frame.format.name != video.array_format:
        converted = _reformatter().reformat(
            frame,
            format=video.array_format,
            src_colorspace=None if rgb else video.swscale_matrix,
            src_color_range=video.swscale_range,
            dst_color_range=2,
            interpolation=_FLAGS,
        )
    if (converted.width, converted.height) != (video.width, video.height):
        raise PictureError(
            f"{video.path}: the size changes from {video.width}x{video.height} to {converted.width}x{converted.height} within the"
            " video, which one result cannot hold: cut it there with --start and --end"
        )
    mastering, light = _hdr(frame)
    pixels = converted.to_ndarray()
    if not rgb and pixels.dtype == np.uint16 and not video.gray:
        full = ((1 << video.bits) - 1) << (16 - video.bits)
        pixels = _table(full if video.swscale_range == 2 else _WHITE, 65535)[pixels]
    return Frame(
        pixels,
        frame.pts,
        frame.duration or 0,
        int(frame.rotation),
        bool(frame.interlaced_frame),
        mastering,
        light,
    )


def _as_frame(pixels: Pixels, array_format: str) -> Any:
    """Return pixels, (H, W, 3) or (H, W), as a frame of that packed format.

    PyAV's `from_ndarray` does the same and keeps all other threads waiting meanwhile: 50 ms for 3840x2160 on two cores.
    """
    height, width = pixels.shape[:2]
    frame = require_av().VideoFrame(width, height, array_format)
    plane = frame.planes[0]
    lines = np.frombuffer(plane, pixels.dtype).reshape(height, plane.line_size // pixels.itemsize)
    np.copyto(lines[:, : pixels[0].size], pixels.reshape(height, -1))
    return frame


@functools.cache
def _table(white: int, becomes: int) -> NDArray[np.uint16]:
    """Return the table that multiplies 16-bit samples so that `white` becomes `becomes`; what is brighter is 65535."""
    scaled = np.rint(np.arange(65536) * (becomes / white))
    table: NDArray[np.uint16] = np.minimum(scaled, 65535).astype(np.uint16)
    return table


def _reformatter() -> Any:
    # One for each call: a reformatter is not safe between threads, and setting one up takes microseconds.
    return require_av().video.reformatter.VideoReformatter()


def _hdr(frame: Any) -> tuple[str | None, tuple[int, int] | None]:
    """Read mastering display and light levels from the side data (AVMasteringDisplayMetadata, AVContentLightMetadata)."""
    mastering, light = None, None
    for number in range(len(frame.side_data)):
        data = frame.side_data[number]
        name, content = data.type.name, bytes(data)
        if name == "MASTERING_DISPLAY_METADATA" and len(content) >= 88:
            numbers = np.frombuffer(content[:80], np.int32).reshape(10, 2)
            values = [Fraction(int(n), int(d)) if d else Fraction(0) for n, d in numbers]
            (rx, ry, gx, gy, bx, by, wx, wy) = (round(v * 50000) for v in values[:8])
            low, high = (round(v * 10000) for v in values[8:])
            mastering = f"G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({high},{low})"
        elif name == "CONTENT_LIGHT_LEVEL" and len(content) >= 8:
            most, mean = np.frombuffer(content[:8], np.uint32)
            light = int(most), int(mean)
    return mastering, light
