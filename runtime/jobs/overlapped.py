"""Upscales pictures so that a device never waits: some are read, some are on the device and some are written at the same time.

threads that read       | 3 | 4 | 5 ...
the caller's thread         | 1 and 2 on the device, see `flashrib.runtime.tiling.frames` | ...
threads that write                                                                         | 1 | 2 ...
"""

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from flashrib.runtime.errors import FlashribError
from flashrib.runtime.jobs.picture import Outcome, Ready, Steps
from flashrib.runtime.jobs.plan import Job
from flashrib.runtime.sessions.protocol import Pixels
from flashrib.runtime.tiling.frames import upscale_frames

READERS = 3
WRITERS = 4
MOST_PICTURES = 12
"""Pictures that are read, upscaled or written at the same time, if `Options.held_bytes` allows it; otherwise as many as devices take
and two."""


class _Slot:
    """What has become of one picture up to now."""

    def __init__(self, reading: "Future[Outcome | Ready]") -> None:
        self.reading: Future[Outcome | Ready] | None = reading
        self.ready: Ready | None = None
        self.submitted = 0.0
        self.upscaled: list[Pixels] = []
        self.writing: Future[Outcome] | None = None
        self.outcome: Outcome | None = None

    @property
    def is_over(self) -> bool:
        return self.outcome is not None or (self.writing is not None and self.writing.done())


def overlapped(steps: Steps, jobs: Sequence[Job]) -> Generator[Outcome]:
    """Yield what became of each picture, in order.

    A picture that fails on a device is tried again alone, with those that were in work beside it, so that the others do not suffer.
    """
    with (
        ThreadPoolExecutor(READERS, "flashrib-read") as readers,
        ThreadPoolExecutor(WRITERS, "flashrib-write") as writers,
    ):
        try:
            yield from _Overlapped(steps, jobs, readers, writers).outcomes()
        except BaseException:  # Ctrl-C: what is being written is written to its end
            for pool in (readers, writers):
                pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Overlapped:
    def __init__(
        self, steps: Steps, jobs: Sequence[Job], readers: ThreadPoolExecutor, writers: ThreadPoolExecutor
    ) -> None:
        self._steps, self._readers, self._writers = steps, readers, writers
        self._todo = deque(jobs)
        self._slots: deque[_Slot] = deque()  # all whose outcome is not out, in order
        self._unread: deque[_Slot] = deque()  # those of them that no device has seen
        self._in_work: deque[_Slot] = deque()  # those on a device
        self._alone: _Slot | None = None  # one that has to have the devices for itself
        self._least = sum(worker.ahead for worker in steps.session.workers) + 2
        self._largest = 0  # bytes of a picture and its result
        self._collected = 0.0

    def outcomes(self) -> Generator[Outcome]:
        while self._todo or self._slots:
            try:
                for upscaled in self._upscaled():
                    self._take(upscaled)
                    yield from self._over()
            except (FlashribError, MemoryError):
                # Not here: the traceback keeps the arrays of what failed.
                again = list(self._in_work)
                self._in_work.clear()
                if not (again and self._steps.session.workers):
                    raise  # nothing that a picture alone could change
            else:
                again = [self._alone] if self._alone is not None else []
            self._alone = None
            for slot in again:
                self._upscale_alone(slot)
                yield from self._over()
            yield from self._over(wait_for_first=not (self._unread or self._todo))

    def _upscaled(self) -> Iterator[Pixels]:
        """What the network makes of the planes of the next pictures, until something else has to be done."""

        def progress(done: int, total: int) -> None:
            slot = self._in_work[0]
            assert slot.ready is not None
            self._steps.report(slot.ready, len(slot.upscaled))(done, total)

        options = self._steps.options
        return upscale_frames(
            self._steps.session, self._planes(), tile=options.tile, halo=options.halo, progress=progress
        )

    def _planes(self) -> Iterator[Pixels]:
        while (slot := self._next()) is not None:
            assert slot.ready is not None
            self._steps.started(slot.ready.job)
            slot.submitted = time.perf_counter()
            self._in_work.append(slot)
            yield from slot.ready.planes

    def _next(self) -> _Slot | None:
        """Wait for the next picture that is read; None where there is none, or where the devices must be left first."""
        while self._read_ahead():
            slot = self._unread.popleft()
            assert slot.reading is not None
            result, slot.reading = slot.reading.result(), None
            if isinstance(result, Ready):
                slot.ready = result
                self._largest = max(self._largest, result.nbytes * (1 + self._steps.session.info.scale**2))
                if not result.whole_file:
                    return slot
                self._alone = slot
                return None
            slot.outcome = result
            if not self._in_work:
                return None  # so that the outcome is yielded
        return None

    def _read_ahead(self) -> bool:
        """Let as many pictures be read as may be held; waits for those that are written if need be. False: none is left."""
        while True:
            alive = [slot for slot in self._slots if not slot.is_over]
            while self._todo and self._room(len(alive)):
                slot = _Slot(self._readers.submit(self._steps.prepare, self._todo.popleft()))
                for waiting in (self._slots, self._unread, alive):
                    waiting.append(slot)
            if self._unread or not self._todo:
                return bool(self._unread)
            wait([slot.writing for slot in alive if slot.writing is not None], return_when=FIRST_COMPLETED)

    def _room(self, alive: int) -> bool:
        return alive < self._least or (
            alive < MOST_PICTURES
            and (alive + 1) * self._largest <= self._steps.options.held_bytes
            and self._largest > 0
        )

    def _take(self, upscaled: Pixels) -> None:
        """Hand the oldest picture on to be written where all its planes are there."""
        slot = self._in_work[0]
        slot.upscaled.append(upscaled)
        ready = slot.ready
        assert ready is not None
        if len(slot.upscaled) < len(ready.planes):
            return
        self._in_work.popleft()
        now = time.perf_counter()
        # Without the time that it waited for the picture before.
        seconds, self._collected = now - max(slot.submitted, self._collected), now
        slot.writing = self._writers.submit(self._steps.write, ready, slot.upscaled, seconds)
        slot.ready, slot.upscaled = None, []  # it may be over long before its turn

    def _upscale_alone(self, slot: _Slot) -> None:
        assert slot.ready is not None
        slot.upscaled = []
        slot.outcome = self._steps.upscale(slot.ready)
        slot.ready, self._collected = None, time.perf_counter()

    def _over(self, wait_for_first: bool = False) -> Iterator[Outcome]:
        """What became of the first pictures, as far as it is known."""
        while self._slots and (self._slots[0].is_over or (wait_for_first and self._slots[0].writing is not None)):
            slot = self._slots.popleft()
            yield slot.outcome if slot.outcome is not None else _result(slot.writing)


def _result(writing: "Future[Outcome] | None") -> Outcome:
    assert writing is not None
    return writing.result()
