"""Upscales the pictures of a plan, one after the other; where a GPU does it, others are read and written meanwhile."""

import dataclasses
import functools
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flashrib.runtime.errors import FlashribError, OutOfMemoryError, PictureError, SessionError
from flashrib.runtime.jobs.animation import upscale_animation
from flashrib.runtime.jobs.folders import MadeFolders
from flashrib.runtime.jobs.journal import Journal
from flashrib.runtime.jobs.large import LARGE_BYTES, not_in_bands_because, result_bytes, upscale_large
from flashrib.runtime.jobs.plan import STREAM, Job, is_stream
from flashrib.runtime.pictures.animation import read_animation
from flashrib.runtime.pictures.files import check_output, read_picture, read_stream, write_picture, write_stream
from flashrib.runtime.pictures.fit import stripped
from flashrib.runtime.pictures.formats import written_format
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.upscale import upscale_picture

PICTURES_AT_A_TIME = 4
"""Pictures that are read, upscaled or written at the same time where a GPU upscales: encoding takes longer than upscaling."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How pictures are upscaled and written.

    Attributes:
        tile: input pixels that a tile owns, see `upscale_array`.
        halo: input pixels of context around a tile, see `upscale_array`.
        overwrite: results may replace files.
        quality: 1..100 of lossy formats, see `write_picture`.
        strip: write nothing beside the pixels but what their colours need.
        max_pixels: refuse larger inputs; None: what fits into free memory.
        allow_truncated: take what there is of damaged inputs.
        stream_extension: format of what is written to standard output or another pipe, such as ".png".
        bands_from: bytes of a result from which on it is read, upscaled and written in bands of rows, where it can be.
    """

    tile: int | tuple[int, int] | None = None
    halo: int | None = None
    overwrite: bool = False
    quality: int | None = None
    strip: bool = False
    max_pixels: int | None = None
    allow_truncated: bool = False
    stream_extension: str = ".png"
    bands_from: int = LARGE_BYTES


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


def run_jobs(
    session: Session,
    jobs: Sequence[Job],
    options: Options,
    *,
    started: Callable[[Job], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    journal: Journal | None = None,
) -> Generator[Done | FlashribError]:
    """Upscale pictures; folders for the results are made when the first is written, and none is left empty.

    An iterator that is closed or broken off stops at the next tile; results are written whole or not at all.

    Args:
        session: the loaded model.
        jobs: from `plan_jobs`.
        options: how.
        started: called when a picture begins to be upscaled, by any thread, but by one at a time.
        progress: called with (input pixels done, input pixels in all) of that picture, likewise.
        journal: of the folder of the results: what it says to be done is not made again.

    Yields:
        What became of each picture, in the order of `jobs`; an error of one does not stop the others.
    """
    with MadeFolders() as folders:
        batch = _Batch(session, options, folders, started, progress, journal)
        if len(jobs) == 1 or all(worker.ahead == 1 for worker in session.workers):
            yield from map(batch.outcome, jobs)
            return
        with ThreadPoolExecutor(PICTURES_AT_A_TIME, thread_name_prefix="flashrib-pictures") as pool:
            try:
                yield from pool.map(batch.outcome, jobs)
            except BaseException:  # Ctrl-C: what is in work ends, or stops at the next tile
                batch.stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise


# (height, width, what could not be kept)
_Upscale = Callable[..., tuple[int, int, tuple[str, ...]]]


class _Batch:
    def __init__(
        self,
        session: Session,
        options: Options,
        folders: MadeFolders,
        started: Callable[[Job], None],
        progress: Callable[[int, int], None],
        journal: Journal | None,
    ) -> None:
        self._journal = journal
        self._session, self._options, self._folders = session, options, folders
        self._started, self._progress = started, progress
        self._one_at_a_time = threading.Lock()
        self.stopped = False

    def outcome(self, job: Job) -> Done | FlashribError:
        """Return what became of a picture."""
        try:
            return self._upscale(job)
        except FlashribError as error:
            return error

    def _upscale(self, job: Job) -> Done:
        """Read, upscale and write one picture."""
        into_file = not is_stream(str(job.target))
        journal = self._journal if into_file and job.source.is_file() else None
        if journal and (size := journal.done(job.source, job.target)):
            return Done(job.source, job.target, *size, 0.0, 0, earlier=True)
        overwrite = self._options.overwrite
        if journal and journal.is_ours(job.target):
            overwrite = True
        elif job.error:
            raise job.error
        try:
            if into_file:
                self._folders.make(job.target.parent)
            if upscale := self._file_to_file(job):
                done = self._without_holding_it(job, overwrite, journal, upscale)
            else:
                done = self._as_a_whole(job, overwrite, journal)
        except PictureError:
            raise  # names the file already
        except FlashribError as error:
            raise type(error)(f"{job.source}: {error}") from error
        except MemoryError as error:
            raise OutOfMemoryError(f"{job.source}: does not fit into memory") from error
        if journal:
            journal.finish(job.source, job.target, (done.width, done.height, done.output_width, done.output_height))
        return done

    def _as_a_whole(self, job: Job, overwrite: bool, journal: Journal | None) -> Done:
        options, scale = self._options, self._session.info.scale
        began, count = time.perf_counter(), TileCount()
        picture = self._read(job)
        size = (picture.width, picture.height, picture.width * scale, picture.height * scale)
        if not is_stream(str(job.target)):
            check_output(job.target, overwrite=overwrite, height=size[3], width=size[2], alpha=picture.see_through)
        waits = time.perf_counter()
        with self._one_at_a_time:
            began += time.perf_counter() - waits  # the time of others
            self._started(job)
            upscaled = upscale_picture(
                self._session, picture, tile=options.tile, halo=options.halo, progress=self._counted(count)
            )
        if journal:
            journal.begin(job.target)
        lost = self._write(job, stripped(upscaled) if options.strip else upscaled, overwrite)
        return Done(job.source, job.target, *size, time.perf_counter() - began, count.tiles, lost=lost)

    def _without_holding_it(self, job: Job, overwrite: bool, journal: Journal | None, upscale: _Upscale) -> Done:
        options, scale = self._options, self._session.info.scale
        began, count = time.perf_counter(), TileCount()
        check_output(job.target, overwrite=overwrite)
        if journal:
            journal.begin(job.target)
        with self._one_at_a_time:
            self._started(job)
            rows, columns, lost = upscale(
                tile=options.tile,
                halo=options.halo,
                quality=options.quality,
                strip=options.strip,
                progress=self._counted(count),
            )
        size = (columns, rows, columns * scale, rows * scale)
        return Done(job.source, job.target, *size, time.perf_counter() - began, count.tiles, lost=lost)

    def _counted(self, count: "TileCount") -> Callable[[int, int], None]:
        """Progress that counts tiles as well, and ends the work when the batch is stopped."""

        def progress(done: int, total: int) -> None:
            if self.stopped:
                raise SessionError("stopped")
            count.report(done)
            self._progress(done, total)

        return progress

    def _file_to_file(self, job: Job) -> _Upscale | None:
        """Return what upscales a picture without having it in memory as a whole, or None where that is not the way."""
        if not job.source.is_file() or is_stream(str(job.target)):
            return None
        info, most = self._session.info, self._options.max_pixels
        if animation := read_animation(job.source, max_pixels=most):
            return functools.partial(upscale_animation, self._session, job.source, job.target, animation)
        if result_bytes(job.source, info.scale) < self._options.bands_from:
            return None
        if most is not None and result_bytes(job.source, 1, samples=1) > most:
            return None  # refused where pictures are read whole
        if (info.whole_picture and self._options.tile is None) or not_in_bands_because(job.source, job.target):
            return None
        return functools.partial(upscale_large, self._session, job.source, job.target)

    def _read(self, job: Job) -> Picture:
        most, truncated = self._options.max_pixels, self._options.allow_truncated
        if str(job.source) != STREAM:
            return read_picture(job.source, max_pixels=most, allow_truncated=truncated)
        if sys.stdin is None:
            raise PictureError("standard input: is closed")
        return read_stream(sys.stdin.buffer, "standard input", max_pixels=most, allow_truncated=truncated)

    def _write(self, job: Job, picture: Picture, overwrite: bool) -> tuple[str, ...]:
        options = self._options
        if not is_stream(str(job.target)):
            return write_picture(job.target, picture, overwrite=overwrite, quality=options.quality)
        row = written_format(job.target)
        extension = row[0].suffixes[0] if row else options.stream_extension
        if str(job.target) == STREAM:
            if sys.stdout is None:
                raise PictureError("standard output: is closed")
            return write_stream(sys.stdout.buffer, "standard output", picture, extension, quality=options.quality)
        try:
            with open(job.target, "wb") as file:
                return write_stream(file, str(job.target), picture, extension, quality=options.quality)
        except BrokenPipeError:
            raise  # whoever reads has had enough
        except OSError as error:
            raise PictureError(f"{job.target}: cannot be written: {error.strerror or error}") from error


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
