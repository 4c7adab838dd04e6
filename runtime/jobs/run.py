"""Upscales the pictures of a plan, one after the other; where a GPU does it, others are read and written meanwhile."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future

from flashrib.runtime.jobs.folders import MadeFolders
from flashrib.runtime.jobs.journal import Journal
from flashrib.runtime.jobs.overlapped import overlapped
from flashrib.runtime.jobs.picture import Done, Options, Outcome, Ready, Steps, read_early
from flashrib.runtime.jobs.plan import Job
from flashrib.runtime.pictures.limits import BYTES_PER_PIXEL, max_pixels_by_memory
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.memory import BAND_SHARE, HELD_SHARE, TILE_SHARE, left_of, tile_within
from flashrib.runtime.tiling.upscale import DEFAULT_HALO

MOST_TILE = 512
"""Side that a tile owns at most where memory decides: twice the default, for which less of a tile is halo."""

__all__ = ["Done", "Options", "read_early", "run_jobs", "within_memory"]


def within_memory(session: Session, options: Options, total: int) -> Options:
    """Return the options with which the work keeps within `total` bytes of memory for the process.

    Where no tile is asked for, the memory of the network is measured on the CPU; a GPU's memory is counted by itself.

    Raises:
        OutOfMemoryError: the model and the libraries have taken them already, or the smallest tile does not fit.
    """
    halo = DEFAULT_HALO if options.halo is None else options.halo
    left = left_of(total)
    tile = options.tile if options.tile is not None else tile_within(session, halo, int(TILE_SHARE * left))
    if isinstance(tile, int):
        tile = min(tile, MOST_TILE) if options.tile is None else tile
    return dataclasses.replace(
        options,
        tile=tile,
        whole_pixels=min(max_pixels_by_memory(), left // BYTES_PER_PIXEL),
        bands_from=min(options.bands_from, int(HELD_SHARE * left)),
        band_bytes=int(BAND_SHARE * left),
        held_bytes=int(HELD_SHARE * left),
    )


def run_jobs(
    session: Session,
    jobs: Sequence[Job],
    options: Options,
    *,
    started: Callable[[Job], None] = lambda _: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    journal: Journal | None = None,
    first: Future[Picture] | None = None,
) -> Generator[Outcome]:
    """Upscale pictures; folders for the results are made when the first is written, and none is left empty.

    Results are written whole or not at all, also where the iterator is closed or broken off.

    Args:
        session: the loaded model.
        jobs: from `plan_jobs`.
        options: how.
        started: called when a picture begins to be upscaled, in the order of `jobs`.
        progress: called with (input pixels done, input pixels in all) of the picture at hand, by one thread at a time.
        journal: of the folder of the results: what it says to be done is not made again.
        first: what `read_early` returned for the same jobs and options.

    Yields:
        What became of each picture, in the order of `jobs`; an error of one does not stop the others.
    """
    with MadeFolders() as folders:
        steps = Steps(
            session, options, folders, started, progress, journal, None if first is None else (jobs[0], first)
        )
        if len(jobs) > 1 and any(worker.ahead > 1 for worker in session.workers):
            yield from overlapped(steps, jobs)
            return
        for job in jobs:
            ready = steps.prepare(job)
            yield steps.upscale(ready) if isinstance(ready, Ready) else ready
