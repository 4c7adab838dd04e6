"""Running ahead and sharing tiles among devices, with stand-ins that compute on the CPU."""

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime.errors import DeviceFailedError, OutOfMemoryError, PictureError, SessionError
from flashrib.runtime.pictures.source import ArraySource
from flashrib.runtime.sessions.base import OneByOne
from flashrib.runtime.sessions.protocol import Batch, TileWorker, not_finite
from flashrib.runtime.tiling.frames import upscale_frames
from flashrib.runtime.tiling.upscale import upscale_array, upscale_stream
from tests.runtime.sessions.fakes import BlurredWindowSession, FakeSession
from tests.runtime.tiling.test_upscale import noise


class Worker:
    """Does what `OneByOne` does, but only when the result is collected; refuses more than `ahead` tiles in work."""

    ahead = 2

    def __init__(self, session: FakeSession, seconds: float = 0.0, most: int = 10**9) -> None:
        self.session, self.seconds, self.most = session, seconds, most
        self.in_work: deque[tuple[Any, ...]] = deque()
        self.tiles: list[str] = []
        self.ahead_at_submit: list[int] = []
        self.abandoned = 0
        self.threads: set[int] = set()

    def submit(self, pixels: NDArray[Any], rows: slice, columns: slice, where: str) -> None:
        assert len(self.in_work) < self.ahead
        self.threads.add(threading.get_ident())
        self.ahead_at_submit.append(len(self.in_work))
        if pixels.shape[0] * pixels.shape[1] > self.most:
            raise OutOfMemoryError("does not fit")
        self.in_work.append((pixels.copy(), rows, columns, where))

    def collect(self, target: NDArray[Any]) -> None:
        tile = self.in_work.popleft()
        time.sleep(self.seconds)
        one = OneByOne(self.session)
        one.submit(*tile)
        one.collect(target)
        self.tiles.append(tile[3])

    def abandon(self) -> None:
        self.abandoned += 1
        self.in_work.clear()


class Spread(BlurredWindowSession):
    """A session of stand-ins."""

    def __init__(self, workers: Sequence[Worker], most: int = 40 * 40, **options: Any) -> None:
        super().__init__(**options)
        self._workers, self._most = workers, most

    @property
    def workers(self) -> Sequence[TileWorker]:
        return self._workers

    def most_pixels(self) -> int:
        return self._most


class Failing(Worker):
    """Fails for good at the given call of `submit` or `collect`."""

    def __init__(self, session: FakeSession, call: str, number: int) -> None:
        super().__init__(session)
        self.failed, self._call, self._left = False, call, number

    def submit(self, *tile: Any) -> None:
        self._count("submit")
        super().submit(*tile)

    def collect(self, target: NDArray[Any]) -> None:
        self._count("collect")
        super().collect(target)

    def _count(self, call: str) -> None:
        self._left -= call == self._call
        if self._left < 0:
            self.failed = True
            raise DeviceFailedError("unspecified launch failure")


class Mortal(Spread):
    """A session some of whose devices fail."""

    @property
    def workers(self) -> Sequence[TileWorker]:
        return [worker for worker in self._workers if not getattr(worker, "failed", False)]


@pytest.mark.parametrize("call", ["submit", "collect"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_device_that_fails_leaves_its_tiles_to_the_others(
    call: str, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = noise(96, 96, 3)
    slow = Worker(BlurredWindowSession(), seconds=0.02)
    session = Mortal([Failing(BlurredWindowSession(), call, number), slow])
    result = upscale_array(session, pixels, tile=16, halo=8)
    np.testing.assert_array_equal(result, upscale_array(BlurredWindowSession(), pixels, tile=16, halo=8))
    assert [record.getMessage() for record in caplog.records] == [
        "flashrib: warning: a device failed, and the others do its work: unspecified launch failure"
    ]


@pytest.mark.parametrize("count", [1, 2])
def test_all_devices_fail(count: int) -> None:
    session = Mortal([Failing(BlurredWindowSession(), "collect", 1) for _ in range(count)])
    with pytest.raises(DeviceFailedError, match="launch failure"):
        upscale_array(session, noise(96, 96, 3), tile=16, halo=8)
    with pytest.raises(SessionError, match="its devices failed"):
        upscale_array(session, noise(96, 96, 3), tile=16, halo=8)


@pytest.mark.parametrize("call", ["submit", "collect"])
def test_frames_of_a_device_that_fails(call: str) -> None:
    given = [noise(24, 32 + 8 * (number % 2), 3) for number in range(9)]
    session = Mortal([Worker(BlurredWindowSession()), Failing(BlurredWindowSession(), call, 2)], most=10**6)
    for one, pixels in zip(upscale_frames(session, given), given, strict=True):
        np.testing.assert_array_equal(one, upscale_array(BlurredWindowSession(), pixels))


def test_a_session_without_workers_of_its_own_has_one() -> None:
    (worker,) = FakeSession().workers
    assert isinstance(worker, OneByOne)


def test_a_closed_session_says_so() -> None:
    with pytest.raises(SessionError, match="the session is closed"):
        upscale_array(Spread([]), noise(20, 20, 3), tile=16)
    with pytest.raises(SessionError, match="the session is closed"):
        list(upscale_frames(Spread([]), [noise(20, 20, 3)]))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((90, 70, 3), "uint8"), ((90, 70), "uint16"), ((50, 90, 3), "float32"), ((4, 3, 3), "uint8")]
)
def test_the_result_is_that_of_one_tile_after_the_other(count: int, shape: tuple[int, ...], dtype: str) -> None:
    workers = [Worker(BlurredWindowSession()) for _ in range(count)]
    pixels = noise(*shape, dtype=dtype)
    result = upscale_array(Spread(workers), pixels, tile=16, halo=8)
    np.testing.assert_array_equal(result, upscale_array(BlurredWindowSession(), pixels, tile=16, halo=8))
    assert all(not worker.in_work for worker in workers)


def test_one_device_always_has_the_next_tile() -> None:
    worker = Worker(BlurredWindowSession())
    upscale_array(Spread([worker]), noise(64, 64, 3), tile=16, halo=8)
    assert worker.ahead_at_submit == [0] + [1] * (len(worker.ahead_at_submit) - 1)
    assert len(worker.ahead_at_submit) > 4
    assert worker.threads == {threading.get_ident()}


def test_the_faster_device_gets_more_tiles() -> None:
    fast, slow = Worker(BlurredWindowSession()), Worker(BlurredWindowSession(), seconds=0.1)
    done: list[tuple[int, int]] = []
    upscale_array(Spread([fast, slow]), noise(96, 96, 3), tile=16, halo=8, progress=lambda *state: done.append(state))
    assert len(slow.tiles) >= 1
    assert len(fast.tiles) > 2 * len(slow.tiles)
    assert len({*fast.tiles, *slow.tiles}) == len(fast.tiles) + len(slow.tiles)
    assert [count for count, _ in done] == sorted(count for count, _ in done)
    assert done[-1] == (96 * 96, 96 * 96)


def test_a_device_without_memory_makes_all_tiles_smaller() -> None:
    # The one with memory is slow, so that the other gets a tile.
    large = Worker(BlurredWindowSession(), seconds=0.05)
    small = Worker(BlurredWindowSession(), most=24 * 24)
    pixels = noise(96, 96, 3)
    result = upscale_array(Spread([large, small]), pixels, tile=32, halo=8)
    np.testing.assert_array_equal(result, upscale_array(BlurredWindowSession(), pixels))
    assert small.abandoned >= 1


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_stops_all_devices_and_forgets_their_tiles(count: int) -> None:
    class Failing(Worker):
        def collect(self, target: NDArray[Any]) -> None:
            raise not_finite(self.in_work[0][3])

    others = [Worker(BlurredWindowSession(), seconds=0.01) for _ in range(count - 1)]
    failing = Failing(BlurredWindowSession())
    with pytest.raises(SessionError, match=r"NaN or infinity for the tile of rows 0\.\."):
        upscale_array(Spread([failing, *others]), noise(400, 400, 3), tile=16, halo=8)
    assert failing.abandoned == 1
    assert not failing.in_work
    assert all(not worker.in_work for worker in others)
    assert sum(len(worker.tiles) for worker in others) < 100  # of more than 400


def test_ctrl_c_stops_all_devices() -> None:
    workers = [Worker(BlurredWindowSession(), seconds=0.01) for _ in range(2)]

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upscale_array(Spread(workers), noise(400, 400, 3), tile=16, halo=8, progress=interrupt)
    assert sum(len(worker.tiles) for worker in workers) < 100
    assert all(not worker.in_work for worker in workers)


def test_by_default_the_tiles_are_what_fits() -> None:
    session = BlurredWindowSession()
    worker = Worker(session)
    upscale_array(Spread([worker], most=48 * 48), noise(90, 90, 3), halo=8)
    assert len(worker.tiles) > 1
    assert max(height * width for height, width in session.shapes) <= 48 * 48
    whole = Worker(BlurredWindowSession())
    upscale_array(Spread([whole], most=96 * 96), noise(90, 90, 3), halo=8)
    assert len(whole.tiles) == 1


@pytest.mark.parametrize(("fixed", "whole"), [((32, 32), False), (None, True)], ids=["fixed", "whole-picture"])
def test_sizes_that_the_session_decides(fixed: tuple[int, int] | None, whole: bool) -> None:
    session = BlurredWindowSession(fixed_size=fixed, whole_picture=whole)
    worker = Worker(session)
    upscale_array(Spread([worker], fixed_size=fixed, whole_picture=whole), noise(60, 60, 3), halo=8)
    assert set(session.shapes) == {fixed or (60, 60)}


@dataclasses.dataclass(frozen=True)
class CarefulSource(ArraySource):
    """Refuses to be read above what it was told to forget."""

    forgotten: list[int] = dataclasses.field(default_factory=lambda: [0])

    def read(self, rows: slice, columns: slice) -> NDArray[Any]:
        assert 0 <= self.forgotten[-1] <= rows.start < rows.stop <= self.height
        assert 0 <= columns.start < columns.stop <= self.width
        return super().read(rows, columns)

    def forget(self, row: int) -> None:
        self.forgotten.append(row)


class CarefulSink:
    """Takes bands in order alone, holds none of them, and counts those that are open."""

    def __init__(self, width: int, seconds: float = 0.0) -> None:
        self.width, self.seconds = width, seconds
        self.written: list[NDArray[Any]] = []
        self.row = self.open = self.most_open = 0
        self.lock = threading.Lock()

    def band(self, rows: slice) -> NDArray[Any]:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        return np.full((rows.stop - rows.start, self.width, 3), 99, np.uint8)

    def write(self, rows: slice, pixels: NDArray[Any]) -> None:
        assert self.lock.acquire(blocking=False)
        assert rows == slice(self.row, self.row + len(pixels))
        time.sleep(self.seconds)
        self.row = rows.stop
        self.written.append(pixels.copy())
        pixels[:] = 77
        self.open -= 1
        self.lock.release()


@pytest.mark.parametrize(("devices", "columns", "most_open"), [(1, 1, 4), (1, 5, 3), (2, 1, 6), (3, 5, 4)])
@pytest.mark.parametrize("seconds", [0.0, 0.005])
def test_bands_are_written_in_order_and_few_are_open(
    devices: int, columns: int, most_open: int, seconds: float
) -> None:
    pixels = noise(200, 16 * columns, 3)
    source, sink = CarefulSource(pixels), CarefulSink(2 * pixels.shape[1], seconds)
    session = Spread([Worker(BlurredWindowSession(), seconds=0.001 * i) for i in range(devices)])
    upscale_stream(session, source, sink, tile=16, halo=8)
    wanted = upscale_array(BlurredWindowSession(), pixels, tile=16, halo=8)
    np.testing.assert_array_equal(np.concatenate(sink.written), wanted)
    assert len(sink.written) > 8
    assert sink.most_open <= most_open
    assert source.forgotten == sorted(source.forgotten)
    assert source.forgotten[-1] > 150


@pytest.mark.parametrize("failing_tile", [0, 1, 7, 19, 40])
def test_what_is_written_is_not_computed_again_where_memory_is_short(failing_tile: int) -> None:
    class Failing(BlurredWindowSession):
        def change(self, batch: Batch) -> Batch:
            if len(self.shapes) - 1 == failing_tile:
                raise OutOfMemoryError("does not fit")
            return super().change(batch)

    pixels = noise(200, 48, 3)
    source, sink, session = CarefulSource(pixels), CarefulSink(96), Failing()
    upscale_stream(session, source, sink, tile=(32, 16), halo=8)
    np.testing.assert_array_equal(np.concatenate(sink.written), upscale_array(BlurredWindowSession(), pixels))
    computed = sum(height * width for height, width in session.shapes)
    assert computed < 3.2 * pixels.shape[0] * pixels.shape[1]


def test_a_sink_that_fails_stops_all_devices() -> None:
    class Full(CarefulSink):
        def write(self, rows: slice, pixels: NDArray[Any]) -> None:
            if self.row > 60:
                raise PictureError("the disk is full")
            super().write(rows, pixels)

    workers = [Worker(BlurredWindowSession()) for _ in range(3)]
    with pytest.raises(PictureError, match="full"):
        upscale_stream(Spread(workers), CarefulSource(noise(400, 48, 3)), Full(96), tile=16, halo=8)
    assert all(not worker.in_work for worker in workers)
