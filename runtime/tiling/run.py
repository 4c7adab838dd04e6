"""Runs the tiles of a plan: cuts each out of the source, hands it to a device that is free, hands whole bands to the sink.

A device has several tiles in work where its worker takes them: while it computes one, the one before is written and the one
after is cut. Several devices have a thread each and take the next tile whenever they can.

Tiles are put together in bands, one for each row of tiles. Few bands are open at a time, so that memory is bounded by them and
not by the picture where source and sink allow it.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import DeviceFailedError, OutOfMemoryError, SessionError
from flashrib.runtime.noise import NoiseMap, padded
from flashrib.runtime.pictures.sink import Sink
from flashrib.runtime.pictures.source import Source
from flashrib.runtime.progress import Progress
from flashrib.runtime.sessions.protocol import Batch, Pixels, Session, TileWorker
from flashrib.runtime.tiling.plan import Span, TilePlan


def run_tiles(session: Session, source: Source, tiles: TilePlan, sink: Sink, progress: Progress | None) -> int:
    """Run all tiles of a plan and write what they make.

    Args:
        session: the loaded model.
        source: what the tiles are cut from.
        tiles: plan for the size of `source`, or what is left of it below rows that are written.
        sink: takes the result in bands of rows.
        progress: called with (input pixels done, input pixels in all) before the first and after each tile, by one thread at a time.

    Returns:
        The row of the input down to which the result is written: the height, or less if a tile did not fit into memory.

    Raises:
        SessionError: the session failed, or returned NaN, infinity or a wrong shape.
        PictureError: of `source` or `sink`.
    """
    workers = session.workers
    if not workers:
        raise no_workers()
    # One is written, one is filled, and tiles that run ahead fill some.
    open_bands = 2 + -(-sum(worker.ahead for worker in workers) // len(tiles.columns))
    info = session.info
    noise = (NoiseMap(session.seed, info.scale), info.alignment) if info.noise else None
    job = _Job(source, tiles, sink, info.scale, open_bands, progress, noise)
    try:
        if len(workers) == 1:
            _work(workers[0], job)
        else:
            _work_together(workers, job)
    except (OutOfMemoryError, MemoryError):
        # Not returned here: the traceback keeps the arrays of the tile.
        pass
    return job.row


class _Band:
    """The result of one row of tiles."""

    def __init__(self, span: Span, tiles: int) -> None:
        self.span, self.missing = span, tiles
        self.pixels: Pixels | None = None


class _Job:
    """What is to be done and how far it is; hands every tile out once, whatever number of threads asks."""

    def __init__(
        self,
        source: Source,
        tiles: TilePlan,
        sink: Sink,
        scale: int,
        open_bands: int,
        progress: Progress | None,
        noise: tuple[NoiseMap, int] | None,
    ) -> None:
        self.scale, self.row = scale, tiles.rows[0].write_start
        self._noise = noise
        self._source, self._sink, self._progress = source, sink, progress
        self._open_bands = open_bands
        self._furthest = tiles.largest[0]
        self._columns = len(tiles.columns)
        self._bands = [_Band(row, self._columns) for row in tiles.rows]
        self._tiles = [(band, column) for band in self._bands for column in tiles.columns]
        self._taken = self._written = 0
        self._returned: deque[tuple[_Band, Span]] = deque()  # of devices that failed
        self._done, self._total = self.row * tiles.width, tiles.height * tiles.width
        self._changed, self._reading = threading.Condition(), threading.Lock()
        self._writing = self._stopped = False
        if progress is not None:
            progress(self._done, self._total)

    def take(self, wait: bool) -> tuple[_Band, Span] | None:
        """Return the next tile, or None if there is none.

        It waits while as many bands as may be are open, since others write them; without `wait` it returns None then.
        """
        with self._changed:
            while not self._stopped and self.is_left:
                if self._returned:
                    return self._returned.popleft()
                if self._taken // self._columns < self._written + self._open_bands:
                    band, column = self._tiles[self._taken]
                    if band.pixels is None:
                        band.pixels = self._sink.band(_written(band.span, self.scale))
                    self._taken += 1
                    return band, column
                if not wait:
                    break
                self._changed.wait()
        return None

    @property
    def is_left(self) -> bool:
        """Whether there are tiles that nobody has."""
        return bool(self._returned) or self._taken < len(self._tiles)

    def give_back(self, tiles: Iterable[tuple[_Band, Span]]) -> None:
        """Take tiles back from a device that failed."""
        with self._changed:
            self._returned.extend(tiles)
            self._changed.notify_all()

    def cut(self, row: Span, column: Span) -> Pixels:
        """Return what a tile reads, padded by reflection where the plan says so."""
        with self._reading:
            part = self._source.read(slice(row.read_start, row.read_stop), slice(column.read_start, column.read_stop))
        if row.pad:
            part = part[_mirrored(len(part), row.size)]
        if column.pad:
            part = part[:, _mirrored(part.shape[1], column.size)]
        return part

    def noise(self, row: Span, column: Span) -> Batch | None:
        """Return the noise of a tile, cut from the one map of the picture, where the model takes some."""
        if self._noise is None:
            return None
        noise, multiple = self._noise

        def wanted(span: Span) -> slice:
            return slice(span.read_start, span.read_start + padded(span.size, multiple))

        return noise.part(wanted(row), wanted(column))

    def target(self, band: _Band, column: Span) -> Pixels:
        """Return where the result of a tile belongs."""
        assert band.pixels is not None
        return band.pixels[:, _written(column, self.scale)]

    def stop(self) -> None:
        """Hand out no more tiles."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def count(self, band: _Band, column: Span) -> None:
        """Count a tile that lies in its band; write the bands that are full."""
        with self._changed:
            band.missing -= 1
            self._done += (band.span.write_stop - band.span.write_start) * (column.write_stop - column.write_start)
            if self._progress is not None and not self._stopped:
                self._progress(self._done, self._total)
            if self._writing:
                return  # whoever writes looks for more before it stops
            self._writing = True
        while (full := self._first_full()) is not None:
            assert full.pixels is not None
            self._sink.write(_written(full.span, self.scale), full.pixels)
            full.pixels = None
            self._next_band(full)

    def _first_full(self) -> _Band | None:
        with self._changed:
            if self._written < len(self._bands) and self._bands[self._written].missing == 0:
                return self._bands[self._written]
            self._writing = False
            return None

    def _next_band(self, written: _Band) -> None:
        with self._changed:
            self._written += 1
            self.row = written.span.write_stop
            self._changed.notify_all()
        with self._reading:
            # Tiles of another plan that own the next row, if this one fails, are no larger than those of this plan.
            self._source.forget(max(0, self.row - self._furthest))


def _work(worker: TileWorker, job: _Job) -> None:
    """Run tiles on one device until none is left."""
    in_work: deque[tuple[_Band, Span]] = deque()

    def collect() -> None:
        band, column = in_work[0]
        worker.collect(job.target(band, column))
        in_work.popleft()
        job.count(band, column)

    try:
        while True:
            if len(in_work) == worker.ahead:
                collect()
            # With tiles in work it does not wait: the bands that must be written first may be theirs.
            tile = job.take(wait=not in_work)
            if tile is None:
                if not in_work:
                    return
                collect()
                continue
            in_work.append(tile)
            band, column = tile
            row = band.span
            where = f"the tile of rows {row.read_start}..{row.read_stop} and columns {column.read_start}..{column.read_stop}"
            tile_of = job.cut(row, column), _owned(row, job.scale), _owned(column, job.scale), where
            if (noise := job.noise(row, column)) is None:
                worker.submit(*tile_of)
            else:
                worker.submit(*tile_of, noise)
    except DeviceFailedError:
        job.give_back(in_work)
        raise
    except BaseException:
        job.stop()
        worker.abandon()
        raise


def _work_together(workers: Sequence[TileWorker], job: _Job) -> None:
    """Run tiles on several devices; the first error stops them all, but for a device that fails: the others take its tiles."""
    alive, failed = list(workers), True
    while failed and job.is_left:
        failed = False
        with ThreadPoolExecutor(len(alive), thread_name_prefix="flashrib-tiles") as pool:
            futures = {pool.submit(_work, worker, job): worker for worker in alive}
            try:
                for future in as_completed(futures):
                    try:
                        future.result()
                    except DeviceFailedError as error:
                        alive.remove(futures[future])
                        if not alive:
                            raise
                        say_failed(error)
                        failed = True
            except BaseException:  # Ctrl-C too: the threads must not go on
                job.stop()
                raise


def no_workers() -> SessionError:
    """What is said where a session has no worker left."""
    return SessionError("the session is closed, or its devices failed: make a new one")


def say_failed(error: DeviceFailedError) -> None:
    """Warn of a device whose work others do."""
    logging.getLogger("flashrib").warning("flashrib: warning: a device failed, and the others do its work: %s", error)


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
