"""One picture of a batch, step by step: what is read and refused before, what is written after the network."""

import contextlib
import dataclasses
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from flashrib.runtime.errors import FlashribError, OutOfMemoryError, PictureError
from flashrib.runtime.jobs.animation import upscale_animation
from flashrib.runtime.jobs.folders import MadeFolders
from flashrib.runtime.jobs.journal import Journal
from flashrib.runtime.jobs.large import LARGE_BYTES, not_in_bands_because, result_bytes, upscale_large
from flashrib.runtime.jobs.plan import STREAM, Job, is_stream
from flashrib.runtime.pictures.animation import read_animation
from flashrib.runtime.pictures.files import check_output, read_picture, read_stream, write_picture, write_stream
from flashrib.runtime.pictures.fit import stripped
from flashrib.runtime.pictures.formats import written_format
from flashrib.runtime.pictures.large.sink import write_pyramid
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.sessions.protocol import Pixels, Session
from flashrib.runtime.tiling.upscale import joined, planes, upscale_array

EARLY_BYTES = 2**27
"""Bytes of the pixels of a picture that is read before the model is there; larger ones may have to be read in bands."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How pictures are upscaled and written.

    Attributes:
        tile: input pixels that a tile owns, see `upscale_array`.
        halo: input pixels of context around a tile, see `upscale_array`.
        overwrite: results may replace files.
        quality: 1..100 of lossy formats, see `write_picture`.
        png_level: 0..9 of PNG, likewise.
        pyramid: TIFFs get smaller levels, see `write_pyramid`.
        strip: write nothing beside the pixels but what their colours need.
        max_pixels: refuse larger inputs; None: what fits into free memory.
        allow_truncated: take what there is of damaged inputs.
        stream_extension: format of what is written to standard output or another pipe, such as ".png".
        whole_pixels: refuse larger inputs where they would be held as a whole, and `max_pixels` says nothing.
        bands_from: bytes of a result from which on it is read, upscaled and written in bands of rows, where it can be.
        band_bytes: that these bands may take, see `upscale_large`.
        held_bytes: that pictures and results of a batch may take that are held ahead for a device.
    """

    tile: int | tuple[int, int] | None = None
    halo: int | None = None
    overwrite: bool = False
    quality: int | None = None
    png_level: int | None = None
    pyramid: bool = False
    strip: bool = False
    max_pixels: int | None = None
    allow_truncated: bool = False
    stream_extension: str = ".png"
    whole_pixels: int | None = None
    bands_from: int = LARGE_BYTES
    band_bytes: int = LARGE_BYTES
    held_bytes: int = LARGE_BYTES

    @property
    def identity(self) -> dict[str, Any]:
        """What of them decides what results hold, in JSON's types."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in values if not name.endswith(("_bytes", "_from", "whole_pixels"))}


@dataclasses.dataclass(frozen=True)
class Done:
    """A picture that is written.

    Attributes:
        source: the file that was read.
        target: the file that was written.
        width: columns of the input.
        height: rows of the input.
        output_width: columns of the result.
        output_height: rows of the result.
        seconds: from opening the input to closing the result, without waiting for other pictures.
        tiles: tiles that the result was made of.
        earlier: True where an earlier run made it, as the journal says.
        lost: what of the input is not kept, for the user to read, such as "EXIF".
    """

    source: Path
    target: Path
    width: int
    height: int
    output_width: int
    output_height: int
    seconds: float
    tiles: int
    earlier: bool = False
    lost: tuple[str, ...] = ()


Outcome = Done | FlashribError
Upscale = Callable[..., tuple[int, int, tuple[str, ...]]]
"""Upscales a file; returns height and width of the source in pixels, and what could not be kept."""


@dataclasses.dataclass
class Ready:
    """A picture that is read, and that nothing speaks against.

    Attributes:
        job: which one.
        overwrite: the result may replace a file.
        journal: where it is noted, or None.
        seconds: that reading took.
        picture: None where it is not held in memory as a whole.
        planes: what goes through the network, see `flashrib.runtime.tiling.upscale.planes`.
        whole_file: what upscales the file instead.
        count: counts its tiles.
    """

    job: Job
    overwrite: bool
    journal: Journal | None
    seconds: float = 0.0
    picture: Picture | None = None
    planes: list[Pixels] = dataclasses.field(default_factory=list)
    whole_file: Upscale | None = None
    count: "TileCount" = dataclasses.field(default_factory=lambda: TileCount())

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels of the picture."""
        return sum(plane.nbytes for plane in self.planes)


def read_early(jobs: Sequence[Job], options: Options) -> "Future[Picture] | None":
    """Begin to read the first picture of `jobs` in a thread, while the model is loaded; None where it is better read later."""
    if not jobs or jobs[0].error or not jobs[0].source.is_file():
        return None
    if not 0 < result_bytes(jobs[0].source, 1) <= EARLY_BYTES:
        return None
    reading: Future[Picture] = Future()

    def read() -> None:
        try:
            reading.set_result(_read(jobs[0], options))
        except BaseException as error:  # raised where the picture is wanted
            reading.set_exception(error)

    threading.Thread(target=read, name="flashrib-early", daemon=True).start()
    return reading


class Steps:
    """The steps of every picture; `prepare` and `write` may be called by several threads."""

    def __init__(
        self,
        session: Session,
        options: Options,
        folders: MadeFolders,
        started: Callable[[Job], None],
        progress: Callable[[int, int], None],
        journal: Journal | None,
        first: "tuple[Job, Future[Picture]] | None" = None,
    ) -> None:
        self._first = first
        self.session, self.options, self.started, self.progress = session, options, started, progress
        self._folders, self._journal = folders, journal

    def prepare(self, job: Job) -> Outcome | Ready:
        """Read a picture, or return what became of it."""
        began = time.perf_counter()
        try:
            into_file = not is_stream(str(job.target))
            journal = self._journal if into_file and job.source.is_file() else None
            if journal and (size := journal.done(job.source, job.target)):
                return Done(job.source, job.target, *size, 0.0, 0, earlier=True)
            ready = Ready(job, self.options.overwrite, journal)
            if journal and journal.is_ours(job.target):
                ready.overwrite = True
            elif job.error:
                return job.error
            with _named(job):
                if into_file:
                    self._folders.make(job.target.parent)
                ready.whole_file = self._file_to_file(job)
                if ready.whole_file:
                    check_output(job.target, overwrite=ready.overwrite)
                else:
                    self._read_whole(ready, into_file)
        except FlashribError as error:
            return error
        ready.seconds = time.perf_counter() - began
        return ready

    def upscale(self, ready: Ready) -> Outcome:
        """Upscale a picture alone, and write it."""
        began = time.perf_counter()
        self.started(ready.job)
        try:
            with _named(ready.job):
                if ready.whole_file:
                    return self._upscale_file(ready, ready.whole_file)
                upscaled = [
                    upscale_array(
                        self.session,
                        plane,
                        tile=self.options.tile,
                        halo=self.options.halo,
                        progress=self.report(ready, number),
                    )
                    for number, plane in enumerate(ready.planes)
                ]
        except FlashribError as error:
            return error
        return self.write(ready, upscaled, time.perf_counter() - began)

    def write(self, ready: Ready, upscaled: list[Pixels], seconds: float) -> Outcome:
        """Write what the network made of the planes in so many seconds."""
        began, job, picture = time.perf_counter(), ready.job, ready.picture
        assert picture is not None
        try:
            with _named(job):
                result = joined(picture, upscaled)
                if ready.journal:
                    ready.journal.begin(job.target)
                lost = self._write(job, stripped(result) if self.options.strip else result, ready.overwrite)
                seconds += ready.seconds + time.perf_counter() - began
                return self._done(ready, (picture.height, picture.width), seconds, lost)
        except FlashribError as error:
            return error

    def report(self, ready: Ready, number: int) -> Callable[[int, int], None]:
        """Return what takes the progress of a plane; it counts the picture's tiles as well."""

        def report(done: int, total: int) -> None:
            done, total = number * total + done, len(ready.planes) * total
            ready.count.report(done)
            self.progress(done, total)

        return report

    def _upscale_file(self, ready: Ready, upscale: Upscale) -> Done:
        """Upscale what is not held in memory."""
        began = time.perf_counter()
        if ready.journal:
            ready.journal.begin(ready.job.target)

        def progress(done: int, total: int) -> None:
            ready.count.report(done)
            self.progress(done, total)

        options = self.options
        *size, lost = upscale(
            tile=options.tile, halo=options.halo, quality=options.quality, strip=options.strip, progress=progress
        )
        return self._done(ready, (size[0], size[1]), ready.seconds + time.perf_counter() - began, lost)

    def _done(self, ready: Ready, size: tuple[int, int], seconds: float, lost: tuple[str, ...] = ()) -> Done:
        """Note that the result of a picture of (height, width) is whole."""
        scale, job, (height, width) = self.session.info.scale, ready.job, size
        sides = (width, height, width * scale, height * scale)
        if ready.journal:
            ready.journal.finish(job.source, job.target, sides)
        return Done(job.source, job.target, *sides, seconds, ready.count.tiles, lost=lost)

    def _file_to_file(self, job: Job) -> Upscale | None:
        """Return what upscales a picture without having it in memory as a whole, or None where that is not the way."""
        if not job.source.is_file() or is_stream(str(job.target)):
            return None
        info, most = self.session.info, self.options.max_pixels
        if animation := read_animation(job.source, max_pixels=most):
            if self.options.pyramid:
                raise PictureError(f"{job.source}: has several pictures, of which no pyramid can be made")
            return functools.partial(upscale_animation, self.session, job.source, job.target, animation)
        if result_bytes(job.source, info.scale) < self.options.bands_from:
            return None
        if most is not None and result_bytes(job.source, 1, samples=1) > most:
            return None  # refused where pictures are read whole
        if (info.whole_picture and self.options.tile is None) or not_in_bands_because(job.source, job.target):
            return None
        options = self.options
        return functools.partial(
            upscale_large,
            self.session,
            job.source,
            job.target,
            png_level=options.png_level,
            pyramid=options.pyramid,
            band_bytes=options.band_bytes,
        )

    def _read_whole(self, ready: Ready, into_file: bool) -> None:
        """Read a picture and refuse a result that its format cannot hold."""
        job, scale = ready.job, self.session.info.scale
        if self._first is not None and self._first[0] is job:
            picture, self._first = self._first[1].result(), None
        else:
            picture = _read(job, self.options)
        if into_file:
            height, width = picture.height * scale, picture.width * scale
            check_output(job.target, overwrite=ready.overwrite, height=height, width=width, alpha=picture.see_through)
        ready.picture, ready.planes = picture, planes(picture)

    def _write(self, job: Job, picture: Picture, overwrite: bool) -> tuple[str, ...]:
        options = self.options
        if options.pyramid:
            return write_pyramid(job.target, picture, overwrite=overwrite)
        if not is_stream(str(job.target)):
            return write_picture(
                job.target, picture, overwrite=overwrite, quality=options.quality, png_level=options.png_level
            )
        row = written_format(job.target)
        levels = {"quality": options.quality, "png_level": options.png_level}
        extension = row[0].suffixes[0] if row else options.stream_extension
        if str(job.target) == STREAM:
            if sys.stdout is None:
                raise PictureError("standard output: is closed")
            return write_stream(sys.stdout.buffer, "standard output", picture, extension, **levels)
        try:
            with open(job.target, "wb") as file:
                return write_stream(file, str(job.target), picture, extension, **levels)
        except BrokenPipeError:
            raise  # whoever reads has had enough
        except OSError as error:
            raise PictureError(f"{job.target}: cannot be written: {error.strerror or error}") from error


def _read(job: Job, options: Options) -> Picture:
    most = options.whole_pixels if options.max_pixels is None else options.max_pixels
    truncated = options.allow_truncated
    if str(job.source) != STREAM:
        return read_picture(job.source, max_pixels=most, allow_truncated=truncated)
    if sys.stdin is None:
        raise PictureError("standard input: is closed")
    return read_stream(sys.stdin.buffer, "standard input", max_pixels=most, allow_truncated=truncated)


@contextlib.contextmanager
def _named(job: Job) -> Iterator[None]:
    """Errors name the file."""
    try:
        yield
    except PictureError:
        raise  # names the file already
    except FlashribError as error:
        raise type(error)(f"{job.source}: {error}") from error
    except MemoryError as error:
        raise OutOfMemoryError(f"{job.source}: does not fit into memory") from error


class TileCount:
    """Counts the tiles of a result from what `upscale_picture` reports.

    It goes back when a tile did not fit into memory; what it reported beyond that point is computed again.
    """

    def __init__(self) -> None:
        self._reported: list[int] = []

    def report(self, done: int) -> None:
        """Take the number of pixels done."""
        while self._reported and self._reported[-1] > done:
            self._reported.pop()
        if done > (self._reported[-1] if self._reported else 0):
            self._reported.append(done)

    @property
    def tiles(self) -> int:
        """Tiles that count for the result."""
        return len(self._reported)
