"""Upscales many pictures of one size, such as the frames of a video, so that a device never waits between two of them."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from flashrib.runtime.errors import OutOfMemoryError
from flashrib.runtime.sessions.protocol import Pixels, Session, TileWorker
from flashrib.runtime.tiling.plan import plan
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
) -> Iterator[Pixels]:
    """Yield the frames upscaled, in order.

    Where a frame is one tile, several are in work: while a device computes one, the one before is fetched and the one after is sent.
    Others go tile by tile, one frame after the other. After a frame that did not fit into memory, all do.

    Args:
        session: the loaded model.
        frames: see `upscale_array`; they are asked for as far ahead as devices take work.
        tile: see `upscale_array`.
        halo: see `upscale_array`.

    Raises:
        UsageError, OutOfMemoryError, SessionError: as `upscale_array`.
    """
    scale, workers = session.info.scale, session.workers
    most = sum(worker.ahead for worker in workers)
    in_work: deque[_InWork] = deque()
    turn, whole = 0, True

    def collected() -> Iterator[Pixels]:
        """The oldest; or, where memory ran out, all that are in work, tile by tile."""
        nonlocal whole
        oldest = in_work[0]
        try:
            oldest.worker.collect(oldest.target)
        except OutOfMemoryError:
            whole = False
        else:
            in_work.popleft()
            yield oldest.target
            return
        waiting = _abandoned(in_work, workers)
        for pixels in waiting:
            yield upscale_array(session, pixels, tile=tile, halo=halo)

    try:
        for pixels in frames:
            while len(in_work) >= most:
                yield from collected()
            if not (whole and _is_one_tile(session, pixels, tile, halo)):
                while in_work:
                    yield from collected()
                yield upscale_array(session, pixels, tile=tile, halo=halo)
                continue
            height, width = pixels.shape[:2]
            worker = workers[turn % len(workers)]
            turn += 1
            shape = (height * scale, width * scale, *pixels.shape[2:])
            in_work.append(_InWork(worker, pixels, np.empty(shape, pixels.dtype)))
            try:
                worker.submit(pixels, slice(0, shape[0]), slice(0, shape[1]), "a frame")
            except OutOfMemoryError:
                whole = False
                for waiting in _abandoned(in_work, workers):
                    yield upscale_array(session, waiting, tile=tile, halo=halo)
        while in_work:
            yield from collected()
    finally:
        if in_work:
            _abandoned(in_work, workers)


def _abandoned(in_work: "deque[_InWork]", workers: Iterable[TileWorker]) -> list[Pixels]:
    """Give up what is in work; returns its frames."""
    frames = [item.pixels for item in in_work]
    in_work.clear()
    for worker in workers:
        worker.abandon()
    return frames


def _is_one_tile(session: Session, pixels: Pixels, tile: int | tuple[int, int] | None, halo: int | None) -> bool:
    info = session.info
    halo = DEFAULT_HALO if halo is None else halo
    height, width = pixels.shape[:2]
    sides = tile_sides(session, tile, halo, height, width)
    tiles = plan(height, width, sides, halo, info.alignment, info.minimum, info.fixed_size)
    return len(tiles) == 1 and tiles.largest == (height, width)
