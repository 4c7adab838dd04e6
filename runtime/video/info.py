"""What a video is: its picture stream, how its samples stand for colours, and what else is in the file."""

import dataclasses
import importlib
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

from flashrib.runtime.errors import MissingPackageError, PictureError

# Values of FFmpeg's AVColorSpace (matrix), AVColorRange and AVPixelFormat that decisions hang on; ITU-T H.273, table 4.
_MATRIX_RGB, _MATRIX_UNSPECIFIED = 0, 2
_FULL_RANGE = 2
# AVColorSpace -> the number by which swscale names the same matrix (SWS_CS_*).
_SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_LINES_OF_HD = 576  # videos of more lines that name no matrix are BT.709, others BT.601, as every player assumes


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """The picture stream of a video.

    Attributes:
        path: the file, "-" for a pipe.
        width: of a coded frame, in pixels.
        height: of a coded frame, in pixels.
        format: FFmpeg's name of the pixel format, "yuv420p10le".
        bits: of a sample, 8 to 16.
        gray: True where a frame has one channel.
        sample_aspect_ratio: width of a pixel over its height; None where the file does not say.
        time_base: seconds of one tick of the timestamps.
        rate: mean frames per second; None where the file does not say.
        frames: number of frames, estimated; 0: unknown.
        codec: FFmpeg's name of the codec, "h264".
        range: AVColorRange: 1 limited, 2 full, 0 unspecified.
        primaries: AVColorPrimaries (H.273, table 2); 2: unspecified.
        transfer: AVColorTransferCharacteristic (H.273, table 3); 2: unspecified.
        matrix: AVColorSpace (H.273, table 4); 2: unspecified.
    """

    path: Path
    width: int
    height: int
    format: str
    bits: int
    gray: bool
    sample_aspect_ratio: Fraction | None
    time_base: Fraction
    rate: Fraction | None
    frames: int
    codec: str
    range: int
    primaries: int
    transfer: int
    matrix: int

    @property
    def swscale_matrix(self) -> int:
        """The matrix between RGB and the samples, as swscale numbers it."""
        if self.matrix in _SWSCALE:
            return _SWSCALE[self.matrix]
        return _SWSCALE[1] if self.height > _LINES_OF_HD else _SWSCALE[5]

    @property
    def swscale_range(self) -> int:
        """1: the samples use the limited range, 2: the full one."""
        full = self.range == _FULL_RANGE or self.format.startswith(("yuvj", "gbr", "rgb", "bgr"))
        return 2 if full else 1

    @property
    def array_format(self) -> str:
        """Pixel format that a frame is turned into before the network: 8 or 16 bits, RGB or gray."""
        if self.gray:
            return "gray" if self.bits == 8 else "gray16le"
        return "rgb24" if self.bits == 8 else "rgb48le"

    @property
    def hdr(self) -> bool:
        """True for the transfer functions of HDR: PQ (16) and HLG (18)."""
        return self.transfer in (16, 18)


def require_av() -> Any:
    """Return the module `av`.

    Raises:
        MissingPackageError: PyAV is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise MissingPackageError("av", "videos", "video") from error


def open_input(path: Path) -> Any:
    """Open a video for reading; "-" reads YUV4MPEG2 or any other format that can be read without going back from standard input.

    Raises:
        PictureError: it cannot be read, or there is no picture in it.
    """
    av = require_av()
    try:
        container = av.open(sys.stdin.buffer if str(path) == "-" else str(path))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise PictureError(f"{path}: cannot be read as a video: {message_of(error)}") from error
    if not any(_is_video(stream) for stream in container.streams.video):
        container.close()
        raise PictureError(f"{path}: there is no video in it: for still pictures use flashrib upscale")
    return container


def picture_stream(container: Any) -> Any:
    """Return the stream of the video: the first of pictures that is no cover."""
    return next(stream for stream in container.streams.video if _is_video(stream))


def video_info(container: Any, path: Path) -> VideoInfo:
    """Return what the container says about its video.

    Raises:
        PictureError: a pixel format that nothing here can turn into RGB.
    """
    stream = picture_stream(container)
    context = stream.codec_context
    if context.format is None or not context.width:
        raise PictureError(f"{path}: its pixel format is not known; is the file damaged?")
    components = context.format.components
    if any(component.is_alpha for component in components) and len(components) == 2:
        raise PictureError(f"{path}: gray videos with alpha ({context.format.name}) cannot be read")
    rate = stream.average_rate or stream.guessed_rate
    duration = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1_000_000
    return VideoInfo(
        path=path,
        width=context.width,
        height=context.height,
        format=context.format.name,
        bits=max(component.bits for component in components),
        gray=len(components) == 1 and not context.format.has_palette,
        sample_aspect_ratio=stream.sample_aspect_ratio or context.sample_aspect_ratio or None,
        time_base=stream.time_base,
        rate=rate,
        frames=stream.frames or (round(float(duration * rate)) if rate else 0),
        codec=context.name,
        range=int(context.color_range),
        primaries=int(context.color_primaries),
        transfer=int(context.color_trc),
        matrix=int(context.colorspace),
    )


def container_known(path: Path) -> bool:
    """Say whether FFmpeg knows a container for the suffix of a file to write."""
    av = require_av()
    suffix = path.suffix.lower().removeprefix(".")
    known = {
        "mkv": "matroska",
        "ts": "mpegts",
        "m2ts": "mpegts",
        "m4v": "ipod",
        "mpg": "mpeg",
        "wmv": "asf",
        "ogv": "ogg",
    }
    return bool(suffix) and (suffix in av.formats_available or suffix in known)


def message_of(error: BaseException) -> str:
    """Return what an error of FFmpeg says, without its number and the file's name."""
    return str(getattr(error, "strerror", None) or error)


def _is_video(stream: Any) -> bool:
    return not stream.disposition & require_av().stream.Disposition.attached_pic  # a cover in an audio or video file
