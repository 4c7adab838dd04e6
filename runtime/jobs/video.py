"""Upscales a video: decoding, the session and encoding overlap, in segments, so that a job that was killed goes on where it stopped.

Segments are cut by the number of the frame alone, so that what the result holds does not depend on how often the work was interrupted.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from flashrib.runtime.errors import FlashribError, PictureError, UsageError
from flashrib.runtime.jobs.parts import Parts
from flashrib.runtime.overlap import Ahead, Feed
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.video.codecs import Codec, carries_hdr, codec_named, has_alpha, options_of, pixel_format
from flashrib.runtime.video.distinct import Upscale, Upscaled, upscale_distinct
from flashrib.runtime.video.frames import Frame, Pixels, read_frames
from flashrib.runtime.video.info import VideoInfo, container_known, open_input, video_info
from flashrib.runtime.video.join import join
from flashrib.runtime.video.segments import write_segment

SEGMENT_FRAMES = 240
"""Frames of a segment: what a killed job may lose, and the largest distance between key frames."""
_Timed = tuple[Pixels, int, int]
"""Pixels, when they are shown, and how long, in ticks."""


@dataclasses.dataclass(frozen=True)
class VideoOptions:
    """How a video is written.

    Attributes:
        codec: a name of `flashrib.runtime.video.codecs.NAMES`; None: by the container.
        crf: quality on the codec's own scale; None: its default.
        preset: effort of the encoder in its own words; None: its default.
        start: seconds of the first frame; None: from the beginning.
        end: seconds before which the last frame begins; None: to the end.
        preview: True: each frame beside its bicubic enlargement.
        overwrite: replace a result that exists.
        segment_frames: frames of a segment, >= 1.
    """

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    start: Fraction | None = None
    end: Fraction | None = None
    preview: bool = False
    overwrite: bool = False
    segment_frames: int = SEGMENT_FRAMES


@dataclasses.dataclass(frozen=True)
class VideoReport:
    """What was done, in JSON's types.

    Attributes:
        frames: of the result.
        upscaled: how many of them the network made; the others equal the frame before, or were made by an earlier run.
        resumed: frames that an earlier run had made.
        width: of the result in pixels.
        height: of the result in pixels.
        codec: FFmpeg's encoder.
        pixel_format: of the result.
        copied: kinds of the other streams.
        warnings: what the result lacks, one line each.
    """

    frames: int
    upscaled: int
    resumed: int
    width: int
    height: int
    codec: str
    pixel_format: str
    copied: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return dataclasses.asdict(self)


def upscale_video(
    source: Path,
    target: Path,
    upscale: Upscale,
    scale: int,
    identity: dict[str, Any],
    options: VideoOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VideoReport:
    """Upscale a video into a file.

    Args:
        source: the video; "-": standard input, which cannot be resumed and of which the pictures alone are taken.
        target: the file to write, or "-": standard output, as YUV4MPEG2.
        upscale: maps frames, (H, W, 3) or (H, W) of uint8 or uint16, to frames `scale` times as high and wide, in order; it may ask for
            some more before it gives the first, as `flashrib.runtime.tiling.frames.upscale_frames` does.
        scale: magnification.
        identity: whatever decides what `upscale` makes, in JSON's types; segments of another identity are not used.
        options: see `VideoOptions`.
        progress: called with (frames done, frames in all, estimated; 0: unknown).

    Raises:
        UsageError: options that the codec or the container does not have; the result exists.
        PictureError: the video cannot be read.
        FlashribError: the result cannot be written.
    """
    options = options or VideoOptions()
    if options.start is not None and options.end is not None and options.start >= options.end:
        raise UsageError(f"--start {float(options.start):g} is not before --end {float(options.end):g}")
    _check_target(source, target, options.overwrite)
    with open_input(source) as container:
        video = video_info(container, source)
        frames = read_frames(container, video, options.start, options.end)
        first = next(frames, None)
        if first is None:
            raise PictureError(f"{source}: there is no frame between --start and --end")
        work = _Work(source, target, video, first, upscale, scale, options, progress)
        if str(target) == "-":
            return work.to_pipe(_with(first, frames))
        return work.to_file(_with(first, frames), identity)


def _check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Refuse a result that cannot be written before hours are spent on it."""
    if str(target) == "-":
        return
    if str(source) == "-":
        raise UsageError("a video from standard input goes to standard output: use -o -, and let ffmpeg write the file")
    if target.is_dir():
        raise UsageError(f"{target}: is a folder: give the name of a file")
    if target.exists() and not overwrite:
        Parts(target).remove_finished()
        raise UsageError(f"{target}: exists: use --overwrite to replace it")
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError(f"{target}: is the input itself, which would be lost: give another name with -o")
    if not target.parent.is_dir():
        raise FlashribError(f"{target.parent}: there is no such folder: make it before")
    if not container_known(target):
        raise FlashribError(
            f"{target}: FFmpeg knows no container of this suffix: .mkv, .mp4 and .mov are some that it does"
        )


def _with(first: Frame, rest: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    yield from rest


class _Work:
    """One video on its way."""

    def __init__(
        self,
        source: Path,
        target: Path,
        video: VideoInfo,
        first: Frame,
        upscale: Upscale,
        scale: int,
        options: VideoOptions,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.source, self.target, self.video, self.first, self.options = source, target, video, first, options
        self.upscale, self.scale = upscale, scale
        self.progress = progress or (lambda done, total: None)
        self.done = self.upscaled = self.resumed = 0
        self.warnings: list[str] = []
        self.total = self._estimate()

    def to_file(self, frames: Iterator[Frame], identity: dict[str, Any]) -> VideoReport:
        codec = codec_named(self.options.codec, self.target.suffix)
        chosen, lost = pixel_format(codec, self.video)
        self._warn(codec, lost)
        settings = options_of(codec, self.options.crf, self.options.preset, self.first.mastering, self.first.light)
        if self.target.suffix.lower() == ".avi":  # has no times, so that frames must come in their order
            settings["bf"] = "0"
        parts = Parts(self.target)
        with parts.held():
            parts.begin(self._identity(identity, codec, chosen, settings))
            try:
                segments = self._segments(parts, frames, codec, chosen, settings)
                joined = self._join(parts, segments)
            except FlashribError:
                if not parts.segment(0).is_file():  # nothing to go on with
                    parts.remove()
                raise
            parts.remove()
        height, width = self.first.pixels.shape[:2]
        return VideoReport(
            joined.frames,
            self.upscaled,
            self.resumed,
            width * self.scale * (2 if self.options.preview else 1),
            height * self.scale,
            codec.encoder,
            chosen,
            joined.copied,
            (*self.warnings, *joined.left),
        )

    def to_pipe(self, frames: Iterator[Frame]) -> VideoReport:
        """Write YUV4MPEG2 to standard output; all that it holds is the pictures."""
        codec = Codec("y4m", "rawvideo")
        name = "yuv444p" if self.video.bits == 8 else f"yuv444p{min(self.video.bits, 12)}le"
        chosen = "gray" if self.video.gray and self.video.bits == 8 else name
        made = self._upscaled(frames, lambda number: True)
        pixels = ((one.pixels, one.frame.pts, one.frame.duration) for one in made if one.pixels is not None)
        ratio = self.video.sample_aspect_ratio
        count = write_segment(Path("pipe:1"), pixels, self.video, codec, chosen, {"strict": "-1"}, ratio, pipe=True)
        height, width = self.first.pixels.shape[:2]
        size = (width * self.scale, height * self.scale)
        return VideoReport(count, self.upscaled, 0, *size, "rawvideo", chosen, (), tuple(self.warnings))

    def _warn(self, codec: Codec, lost: str | None) -> None:
        if has_alpha(self.video.format):
            self.warnings.append("transparency, where there is any, is not kept")
        if lost:
            self.warnings.append(
                f"codec {codec.name} cannot hold all of {self.video.format}: {lost}; h265 and ffv1 can"
            )
        if (self.first.mastering or self.first.light) and not carries_hdr(codec):
            self.warnings.append(
                f"codec {codec.name} does not take HDR's mastering display and light levels; h265 and av1 do"
            )
        if self.first.interlaced:
            self.warnings.append("the video is interlaced: its frames are upscaled as they are; deinterlace it before")

    def _identity(self, identity: dict[str, Any], codec: Codec, chosen: str, settings: dict[str, str]) -> str:
        """Text that is equal where segments of an earlier run can be used."""
        options = {name: str(value) for name, value in dataclasses.asdict(self.options).items() if name != "overwrite"}
        described = {
            "source": self.source.name,
            "content": _fingerprint(self.source),
            "codec": codec.encoder,
            "format": chosen,
            "settings": settings,
            "options": options,
            "model": identity,
        }
        return json.dumps(described, indent=2, sort_keys=True) + "\n"

    def _segments(
        self, parts: Parts, frames: Iterator[Frame], codec: Codec, chosen: str, settings: dict[str, str]
    ) -> list[Path]:
        """Make the segments that are missing; returns all, in order."""
        segments: list[Path] = []
        encoding: list[Future[None]] = []
        feed: Feed[_Timed] | None = None
        with ThreadPoolExecutor(2, "encode") as pool, Ahead(frames) as ahead:
            size = self.options.segment_frames
            made = self._upscaled(ahead, lambda number: not parts.segment(number // size).is_file())
            try:
                for number, upscaled in enumerate(made):
                    frame, pixels = upscaled.frame, upscaled.pixels
                    if number % size == 0:
                        if feed is not None:
                            feed.end()
                        while len(encoding) > 1:
                            encoding.pop(0).result()
                        segment, feed = parts.segment(number // size), None
                        segments.append(segment)
                        if pixels is not None:
                            feed = Feed()
                            feed.stage = pool.submit(self._encode, segment, feed, codec, chosen, settings)
                            encoding.append(feed.stage)
                    if feed is None or pixels is None:
                        self.resumed += 1
                    else:
                        feed.put((pixels, frame.pts, frame.duration))
                    self._count(1)
                if feed is not None:
                    feed.end()
            except BaseException:
                made.close()
                if feed is not None:
                    feed.stop()
                raise
            for future in encoding:
                future.result()
        return segments

    def _upscaled(self, frames: Iterator[Frame], is_wanted: Callable[[int], bool]) -> Generator[Upscaled]:
        for upscaled in upscale_distinct(
            frames, self.upscale, is_wanted, self._beside if self.options.preview else None
        ):
            self.upscaled += upscaled.computed
            yield upscaled

    def _beside(self, source: Pixels, result: Pixels) -> Pixels:
        """Return the bicubic enlargement of a frame, and the network's beside it."""
        most = np.iinfo(source.dtype).max
        plain = np.clip(np.rint(imresize(source.astype(np.float64), self.scale)), 0, most)
        return np.concatenate([plain.astype(source.dtype), result], axis=1)

    def _encode(self, segment: Path, frames: Feed[_Timed], codec: Codec, chosen: str, settings: dict[str, str]) -> None:
        staged = segment.with_suffix(".tmp")
        try:
            ratio = self.video.sample_aspect_ratio
            write_segment(staged, frames, self.video, codec, chosen, settings, ratio)
            os.replace(staged, segment)
        finally:
            staged.unlink(missing_ok=True)

    def _join(self, parts: Parts, segments: list[Path]) -> Any:
        staged = parts.joined
        start, end = self.options.start, self.options.end
        with open_input(self.source) as again:
            joined = join(again, self.video, segments, staged, self.target, start, end, self.first.rotation)
        with staged.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(staged, self.target)
        return joined

    def _count(self, frames: int) -> None:
        self.done += frames
        self.progress(self.done, self.total and max(self.total, self.done))

    def _estimate(self) -> int:
        video, options = self.video, self.options
        if not video.rate or (options.start is None and options.end is None):
            return video.frames
        whole = video.frames / video.rate
        length = min(Fraction(whole), options.end or Fraction(whole)) - (options.start or 0)
        return max(1, round(length * video.rate))


def _fingerprint(source: Path) -> str:
    """Return what tells two videos apart without reading all of them: size, and a hash of the first and the last megabyte."""
    if str(source) == "-":
        return ""
    digest = hashlib.sha256()
    with source.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for at in (0, max(0, size - 2**20)):
            file.seek(at)
            digest.update(file.read(2**20))
    return f"{size}-{digest.hexdigest()}"
