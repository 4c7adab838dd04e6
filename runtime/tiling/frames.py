"""Upscales many pictures, such as the frames of a video, so that a device never waits between two of them."""

import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from flashrib.runtime.errors import DeviceFailedError, OutOfMemoryError
from flashrib.runtime.progress import Progress
from flashrib.runtime.sessions.protocol import Pixels, Session, TileWorker
from flashrib.runtime.tiling.plan import plan
from flashrib.runtime.tiling.run import no_workers, say_failed
from flashrib.runtime.tiling.upscale import DEFAULT_HALO, tile_sides, upscale_array


@dataclasses.dataclass(frozen=True)
class _InWork:
    worker: TileWorker
    pixels: Pixels
    target: Pixels


def upscale_frames(
    session: Session,
    frames: Iterable[Pixels],
    *,
    tile: int | tuple[int, int] | None = None,
    halo: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Pixels]:
    """Yield the frames upscaled, in order; they may differ in size.

    Where a frame is one tile to a device, each device has frames of its own, and two of them: while it computes one, the one before is
    fetched and the one after is sent. Others go tile by tile to all devices, one frame after the other, and so does one that is all there
    is. After a frame that did not fit into memory, all of its size and larger ones do.

    Args:
        session: the loaded model.
        frames: see `upscale_array`; they are asked for as far ahead as devices take work.
        tile: see `upscale_array`.
        halo: see `upscale_array`.
        progress: see `upscale_array`, of the frame that is yielded next.

    Raises:
        UsageError, OutOfMemoryError, SessionError: as `upscale_array`.
    """
    scale, workers = session.info.scale, session.workers
    if not workers:
        raise no_workers()
    in_work: deque[_InWork] = deque()
    turn, too_large = 0, math.inf  # pixels of a frame that did not fit
    one_tile: dict[tuple[int, int], bool] = {}  # what is decided once for a size
    frames, is_only = _peeked(frames) if len(workers) > 1 else (frames, False)

    def tiled(pixels: Pixels) -> Pixels:
        return upscale_array(session, pixels, tile=tile, halo=halo, progress=progress)

    def abandoned(failed: Pixels) -> list[Pixels]:
        nonlocal too_large
        too_large = min(too_large, _area(failed))
        return _abandoned(in_work, workers)

    def without_failed(error: DeviceFailedError) -> list[Pixels]:
        nonlocal workers
        waiting = _abandoned(in_work, workers)
        workers = session.workers
        if not workers:
            raise error
        say_failed(error)
        return waiting

    def collected() -> Iterator[Pixels]:
        """The oldest; or, where memory ran out, all that are in work, tile by tile."""
        oldest = in_work[0]
        try:
            oldest.worker.collect(oldest.target)
        except OutOfMemoryError:
            waiting = abandoned(oldest.pixels)
        except DeviceFailedError as error:
            waiting = without_failed(error)
        else:
            in_work.popleft()
            if progress is not None:
                progress(_area(oldest.pixels), _area(oldest.pixels))
            yield oldest.target
            return
        yield from map(tiled, waiting)

    try:
        for pixels in frames:
            while len(in_work) >= sum(worker.ahead for worker in workers):
                yield from collected()
            height, width = pixels.shape[:2]
            if (height, width) not in one_tile:
                one_tile[height, width] = _is_one_tile(session, height, width, tile, halo)
            if _area(pixels) >= too_large or is_only or not one_tile[height, width]:
                while in_work:
                    yield from collected()
                yield tiled(pixels)
                continue
            worker = workers[turn % len(workers)]
            turn += 1
            shape = (height * scale, width * scale, *pixels.shape[2:])
            in_work.append(_InWork(worker, pixels, np.empty(shape, pixels.dtype)))
            try:
                worker.submit(pixels, slice(0, shape[0]), slice(0, shape[1]), "a frame")
            except OutOfMemoryError:
                waiting = abandoned(pixels)
            except DeviceFailedError as error:
                waiting = without_failed(error)
            else:
                continue
            yield from map(tiled, waiting)
        while in_work:
            yield from collected()
    finally:
        if in_work:
            _abandoned(in_work, workers)


def _peeked(frames: Iterable[Pixels]) -> tuple[Iterator[Pixels], bool]:
    """Return the frames, and whether there is one alone."""
    rest = iter(frames)
    first = list(itertools.islice(rest, 2))
    return itertools.chain(first, rest), len(first) == 1


def _area(pixels: Pixels) -> int:
    return int(pixels.shape[0] * pixels.shape[1])


def _abandoned(in_work: "deque[_InWork]", workers: Iterable[TileWorker]) -> list[Pixels]:
    """Give up what is in work; returns its frames."""
    frames = [item.pixels for item in in_work]
    in_work.clear()
    for worker in workers:
        worker.abandon()
    return frames


def _is_one_tile(
    session: Session, height: int, width: int, tile: int | tuple[int, int] | None, halo: int | None
) -> bool:
    """Whether a frame of this size goes to one device as it is, while others take other frames."""
    info = session.info
    if info.noise:
        return False  # what noise a tile takes is known where tiles are cut
    halo = DEFAULT_HALO if halo is None else halo
    sides = tile_sides(session, tile, halo, height, width, devices=1)
    tiles = plan(height, width, sides, halo, info.alignment, info.minimum, info.fixed_size)
    return len(tiles) == 1 and tiles.largest == (height, width)
