"""Upscales the pictures of a plan, one after the other; where a GPU does it, others are read and written meanwhile."""

import dataclasses
import functools
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
from flashrib.runtime.jobs.plan import Job
from flashrib.runtime.pictures.animation import read_animation
from flashrib.runtime.pictures.files import check_output, read_picture, write_picture
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
        bands_from: bytes of a result from which on it is read, upscaled and written in bands of rows, where it can be.
    """

    tile: int | tuple[int, int] | None = None
    halo: int | None = None
    overwrite: bool = False
    quality: int | None = None
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
        if self._journal and (size := self._journal.done(job.source, job.target)):
            return Done(job.source, job.target, *size, 0.0, 0, earlier=True)
        overwrite = self._options.overwrite
        if self._journal and self._journal.is_ours(job.target):
            overwrite = True
        elif job.error:
            raise job.error
        began = time.perf_counter()
        count = TileCount()
        options, scale = self._options, self._session.info.scale

        def progress(done: int, total: int) -> None:
            if self.stopped:
                raise SessionError("stopped")
            count.report(done)
            self._progress(done, total)

        try:
            if upscale := self._file_to_file(job):
                self._folders.make(job.target.parent)
                check_output(job.target, overwrite=overwrite)
                self._begin(job)
                with self._one_at_a_time:
                    self._started(job)
                    rows, columns = upscale(
                        tile=options.tile, halo=options.halo, quality=options.quality, progress=progress
                    )
                seconds = time.perf_counter() - began
                size = (columns, rows, columns * scale, rows * scale)
                return self._finish(job, Done(job.source, job.target, *size, seconds, count.tiles))
            picture = read_picture(job.source)
            height, width = picture.height * scale, picture.width * scale
            self._folders.make(job.target.parent)
            check_output(job.target, overwrite=overwrite, height=height, width=width, alpha=picture.see_through)
            waits = time.perf_counter()
            with self._one_at_a_time:
                began += time.perf_counter() - waits  # the time of others
                self._started(job)
                upscaled = upscale_picture(
                    self._session, picture, tile=options.tile, halo=options.halo, progress=progress
                )
            self._begin(job)
            write_picture(job.target, upscaled, overwrite=overwrite, quality=options.quality)
        except PictureError:
            raise  # names the file already
        except FlashribError as error:
            raise type(error)(f"{job.source}: {error}") from error
        except MemoryError as error:
            raise OutOfMemoryError(f"{job.source}: does not fit into memory") from error
        seconds = time.perf_counter() - began
        size = (picture.width, picture.height, width, height)
        return self._finish(job, Done(job.source, job.target, *size, seconds, count.tiles))

    def _begin(self, job: Job) -> None:
        if self._journal:
            self._journal.begin(job.target)

    def _finish(self, job: Job, done: Done) -> Done:
        if self._journal:
            size = (done.width, done.height, done.output_width, done.output_height)
            self._journal.finish(job.source, job.target, size)
        return done

    def _file_to_file(self, job: Job) -> Callable[..., tuple[int, int]] | None:
        """Return what upscales a picture without having it in memory as a whole, or None where that is not the way."""
        if animation := read_animation(job.source):
            return functools.partial(upscale_animation, self._session, job.source, job.target, animation)
        info = self._session.info
        if result_bytes(job.source, info.scale) < self._options.bands_from:
            return None
        if (info.whole_picture and self._options.tile is None) or not_in_bands_because(job.source, job.target):
            return None
        return functools.partial(upscale_large, self._session, job.source, job.target)


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
