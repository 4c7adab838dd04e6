"""Between the frames of a film and arrays of pixels.

The matrix and the range are the film's in both directions and nothing else is converted: a film in PQ or BT.2020 goes through the
network as it is coded, and comes out as it came. With these settings of swscale a frame that goes to RGB and back has changed by one
step of its own depth at most (a test holds every format).
"""

import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import PictureError
from flashrib.runtime.video.film import Film, message_of, picture_stream, require_av

Pixels = NDArray[Any]

# swscale: bicubic chroma at full horizontal resolution in both directions, exact rounding, the same bits on every processor.
_FLAGS = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame of a film.

    Attributes:
        pixels: (H, W, 3) RGB or (H, W) gray, uint8, or uint16 for films of more than 8 bits.
        pts: when it is shown, in ticks of the film's time base.
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
    container: Any, film: Film, start: Fraction | None = None, end: Fraction | None = None
) -> Iterator[Frame]:
    """Yield the frames of a film in the order in which they are shown.

    Args:
        container: what `flashrib.runtime.video.film.open_input` returned.
        film: what `film_of` says about it.
        start: seconds of the first frame to yield; None: from the beginning.
        end: seconds before which the last one begins; None: to the end.

    Raises:
        PictureError: the film is damaged, or a frame has no time.
    """
    av = require_av()
    stream = picture_stream(container)
    stream.thread_type = "AUTO"
    count, last = 0, None
    try:
        for frame in container.decode(stream):
            if frame.pts is None:
                raise PictureError(
                    f"{film.path}: frame {count} has no time; remux the film with ffmpeg -fflags +genpts"
                )
            seconds = frame.pts * film.time_base
            if end is not None and seconds >= end:
                return
            count += 1
            if start is not None and seconds < start:
                continue
            if last is not None and frame.pts <= last:
                continue  # a frame shown at the same time as the one before is never seen
            last = frame.pts
            yield _frame(frame, film)
    except av.error.FFmpegError as error:
        raise PictureError(f"{film.path}: is damaged after frame {count}: {message_of(error)}") from error


def to_video_frame(pixels: Pixels, film: Film, pixel_format: str, pts: int, duration: int = 0) -> Any:
    """Return upscaled pixels as a frame in a pixel format of the encoder, tagged as the film is.

    Args:
        pixels: as `Frame.pixels`.
        film: whose matrix, range and tags the frame gets.
        pixel_format: FFmpeg's name, "yuv420p10le".
        pts: when it is shown, in ticks of the film's time base.
        duration: how long, in ticks; 0: unknown.
    """
    av = require_av()
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=film.array_format)
    if frame.format.name != pixel_format:
        colour = not pixel_format.startswith(("gbr", "rgb", "bgr", "gray"))
        frame = _reformatter().reformat(
            frame,
            format=pixel_format,
            dst_colorspace=film.swscale_matrix if colour else None,
            src_color_range=2,
            dst_color_range=film.swscale_range if colour or film.gray else 2,
            interpolation=_FLAGS,
        )
    frame.pts, frame.time_base, frame.duration = pts, film.time_base, duration
    frame.color_range, frame.colorspace = film.range, film.matrix
    frame.color_primaries, frame.color_trc = film.primaries, film.transfer
    return frame


def _frame(frame: Any, film: Film) -> Frame:
    rgb = frame.format.name.startswith(("gbr", "rgb", "bgr"))
    converted = frame
    if frame.format.name != film.array_format:
        converted = _reformatter().reformat(
            frame,
            format=film.array_format,
            src_colorspace=None if rgb else film.swscale_matrix,
            src_color_range=film.swscale_range,
            dst_color_range=2,
            interpolation=_FLAGS,
        )
    if (converted.width, converted.height) != (film.width, film.height):
        raise PictureError(
            f"{film.path}: the size changes from {film.width}x{film.height} to {converted.width}x{converted.height} within the"
            " film, which one result cannot hold: cut it there with --start and --end"
        )
    mastering, light = _hdr(frame)
    return Frame(
        converted.to_ndarray(),
        frame.pts,
        frame.duration or 0,
        int(frame.rotation),
        bool(frame.interlaced_frame),
        mastering,
        light,
    )


def _reformatter() -> Any:
    # One for each call: a reformatter is not safe between threads, and setting one up takes microseconds.
    return require_av().video.reformatter.VideoReformatter()


def _hdr(frame: Any) -> tuple[str | None, tuple[int, int] | None]:
    """Read mastering display and light levels from the side data (AVMasteringDisplayMetadata, AVContentLightMetadata)."""
    mastering, light = None, None
    for data in frame.side_data.keys() if frame.side_data else ():
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
