"""Runs the tiles of a plan: cuts each out of the picture, hands it to a device that is free, writes what comes back.

A worker may have several tiles in work: while it computes one, the one before is written and the one after is cut.
Several workers have a thread each and take the next tile whenever they can.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import OutOfMemoryError, SessionError
from flashrib.runtime.sessions.protocol import Pixels, Session, TileWorker
from flashrib.runtime.tiling.plan import Span, TilePlan

Progress = Callable[[int, int], None]


def run_tiles(session: Session, pixels: Pixels, tiles: TilePlan, output: Pixels, progress: Progress | None) -> bool:
    """Run all tiles of `pixels` and write them into `output`.

    Args:
        session: the loaded model.
        pixels: (H, W, 3) or (H, W), uint8, uint16 or float32.
        tiles: plan for H and W.
        output: (scale*H, scale*W, 3) or (scale*H, scale*W), of the same dtype.
        progress: called with (input pixels done, input pixels in all) before the first and after each tile, by one thread at a time.

    Returns:
        False if a tile did not fit into memory; what is in `output` is then of no use.

    Raises:
        SessionError: the session failed, or returned NaN, infinity or a wrong shape.
    """
    job = _Job(pixels, tiles, output, session.info.scale, progress)
    workers = session.workers
    if not workers:
        raise SessionError("the session is closed: make a new one")
    try:
        if len(workers) == 1:
            _work(workers[0], job)
        else:
            _work_together(workers, job)
    except (OutOfMemoryError, MemoryError):
        return False
    return True


class _Job:
    """What is to be done and how far it is; iterating hands every tile out once, whatever number of threads asks."""

    def __init__(self, pixels: Pixels, tiles: TilePlan, output: Pixels, scale: int, progress: Progress | None) -> None:
        self.pixels, self.output, self.scale = pixels, output, scale
        self._tiles = iter(tiles)
        self._done, self._total = 0, tiles.height * tiles.width
        self._progress = progress
        self._lock = threading.Lock()
        self._stopped = False
        if progress is not None:
            progress(0, self._total)

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        while (tile := self._next()) is not None:
            yield tile

    def _next(self) -> tuple[Span, Span] | None:
        with self._lock:
            return None if self._stopped else next(self._tiles, None)

    def stop(self) -> None:
        """Hand out no more tiles."""
        with self._lock:
            self._stopped = True

    def count(self, row: Span, column: Span) -> None:
        """Count a tile that is written."""
        with self._lock:
            self._done += (row.write_stop - row.write_start) * (column.write_stop - column.write_start)
            if self._progress is not None and not self._stopped:
                self._progress(self._done, self._total)


def _work(worker: TileWorker, job: _Job) -> None:
    """Run tiles on one device until none is left."""
    in_work: deque[tuple[Span, Span]] = deque()

    def collect() -> None:
        row, column = in_work.popleft()
        worker.collect(job.output[_written(row, job.scale), _written(column, job.scale)])
        job.count(row, column)

    try:
        for row, column in job:
            if len(in_work) == worker.ahead:
                collect()
            where = f"the tile of rows {row.read_start}..{row.read_stop} and columns {column.read_start}..{column.read_stop}"
            worker.submit(_cut(job.pixels, row, column), _owned(row, job.scale), _owned(column, job.scale), where)
            in_work.append((row, column))
        while in_work:
            collect()
    except BaseException:
        job.stop()
        worker.abandon()
        raise


def _work_together(workers: Sequence[TileWorker], job: _Job) -> None:
    """Run tiles on several devices; the first error stops them all."""
    with ThreadPoolExecutor(len(workers), thread_name_prefix="flashrib-tiles") as pool:
        futures = [pool.submit(_work, worker, job) for worker in workers]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:  # Ctrl-C too: the threads must not go on
            job.stop()
            raise


def _cut(pixels: Pixels, row: Span, column: Span) -> Pixels:
    """Return what a tile reads, completed by reflection where the plan says so; a view where it does not."""
    part = pixels[row.read_start : row.read_stop, column.read_start : column.read_stop]
    if row.pad:
        part = part[_mirrored(len(part), row.size)]
    if column.pad:
        part = part[:, _mirrored(part.shape[1], column.size)]
    return part


def _owned(span: Span, scale: int) -> slice:
    """Which part of a tile's result it owns, along one axis."""
    return slice((span.write_start - span.read_start) * scale, (span.write_stop - span.read_start) * scale)


def _written(span: Span, scale: int) -> slice:
    """Where that part belongs in the output."""
    return slice(span.write_start * scale, span.write_stop * scale)


def _mirrored(length: int, size: int) -> NDArray[np.intp]:
    """Indices 0..length-1 continued to `size` by reflection that does not repeat the edge, as often as it takes."""
    period = max(1, 2 * (length - 1))
    positions = np.arange(size) % period
    return np.minimum(positions, period - positions) if length > 1 else positions
