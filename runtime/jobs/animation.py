"""Upscales animations and TIFFs of several pages: some are decoded, some are on the device and some are encoded at the same time."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from flashrib.runtime.errors import PictureError
from flashrib.runtime.overlap import Ahead, Feed
from flashrib.runtime.pictures.animation import Animation, not_written_because, read_frames, write_frames
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.progress import Progress
from flashrib.runtime.sessions.protocol import Pixels, Session
from flashrib.runtime.tiling.frames import upscale_frames
from flashrib.runtime.tiling.upscale import joined, planes


def upscale_animation(
    session: Session,
    source: Path,
    target: Path,
    animation: Animation,
    *,
    tile: int | tuple[int, int] | None = None,
    halo: int | None = None,
    quality: int | None = None,
    strip: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int, tuple[str, ...]]:
    """Upscale all pictures of a file into one; frames that equal the one before are not computed again.

    Args:
        session: the loaded model.
        source: the file.
        target: the file to write: .webp, .png or .avif for an animation, .tif for pages.
        animation: what `read_animation` says about `source`.
        tile: see `upscale_array`.
        halo: see `upscale_array`.
        quality: 1 to 100 of lossy formats.
        strip: write nothing beside the pixels but what their colours need.
        progress: called with (done, in all), in thousandths of a picture.

    Returns:
        Height and width of the first picture in pixels, and what could not be kept.

    Raises:
        PictureError: a frame is damaged, or the target cannot hold it.
        UsageError, OutOfMemoryError, SessionError: as `upscale_array`.
    """
    if reason := not_written_because(target, animation):
        raise PictureError(f"{target}: {reason}")
    frames: Feed[Picture] = Feed()
    with ThreadPoolExecutor(1, "encode") as pool, Ahead(read_frames(source, animation)) as ahead:
        writing: Future[tuple[str, ...]] = pool.submit(
            write_frames, target, iter(frames), animation, quality, strip=strip
        )
        frames.stage = writing
        work = _Work(session, tile, halo, len(animation.durations), progress)
        try:
            for picture in work.upscaled(ahead):
                frames.put(picture)
            frames.end()
        except BaseException:
            frames.stop()
            raise
        return *work.size, writing.result()


class _Work:
    """The pictures of one file on their way through the network.

    Attributes:
        size: height and width of the first.
    """

    def __init__(
        self,
        session: Session,
        tile: int | tuple[int, int] | None,
        halo: int | None,
        count: int,
        progress: Progress | None,
    ) -> None:
        self.size = 0, 0
        self._session, self._tile, self._halo, self._count, self._progress = session, tile, halo, count, progress
        # Each with the number of its planes; None: equals the one before.
        self._given: deque[tuple[Picture, int] | None] = deque()
        self._made: list[Pixels] = []  # planes of the first of them
        self._finished = 0

    def upscaled(self, frames: Iterator[Picture]) -> Iterator[Picture]:
        """Yield all pictures in order; devices get some ahead."""
        last: Picture | None = None

        def equal() -> Iterator[Picture]:
            while self._given and self._given[0] is None:
                self._given.popleft()
                self._finished += 1
                assert last is not None
                yield last

        results = upscale_frames(
            self._session, self._distinct(frames), tile=self._tile, halo=self._halo, progress=self._report
        )
        for plane in results:
            yield from equal()
            given = self._given[0]
            assert given is not None
            self._made.append(plane)
            if len(self._made) == given[1]:
                last = joined(given[0], self._made)
                self._given.popleft()
                self._made, self._finished = [], self._finished + 1
                yield last
        yield from equal()

    def _distinct(self, frames: Iterator[Picture]) -> Iterator[Pixels]:
        """The planes of all pictures but of those that equal the one before."""
        before: Picture | None = None
        for frame in frames:
            if before is None:
                self.size = frame.height, frame.width
            elif _equal(before, frame):
                self._given.append(None)
                continue
            before, parts = frame, planes(frame)
            self._given.append((frame, len(parts)))
            yield from parts

    def _report(self, done: int, total: int) -> None:
        waiting = next((given for given in self._given if given is not None), None)
        if self._progress is not None and waiting is not None:
            total *= waiting[1]
            done = 1000 * (len(self._made) * total // waiting[1] + done) // total
            self._progress(1000 * self._finished + done, 1000 * self._count)


def _equal(one: Picture, other: Picture) -> bool:
    alphas = (one.alpha is None, other.alpha is None)
    if alphas[0] != alphas[1] or not np.array_equal(one.pixels, other.pixels):
        return False
    return one.alpha is None or other.alpha is None or np.array_equal(one.alpha, other.alpha)
