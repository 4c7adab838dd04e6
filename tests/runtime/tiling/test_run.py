"""Running ahead and sharing tiles among devices, with stand-ins that compute on the CPU."""

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime.errors import OutOfMemoryError, SessionError
from flashrib.runtime.sessions.base import OneByOne
from flashrib.runtime.sessions.protocol import TileWorker, not_finite
from flashrib.runtime.tiling.upscale import upscale_array
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


def test_a_session_without_workers_of_its_own_has_one() -> None:
    (worker,) = FakeSession().workers
    assert isinstance(worker, OneByOne)


def test_a_closed_session_says_so() -> None:
    with pytest.raises(SessionError, match="the session is closed"):
        upscale_array(Spread([]), noise(20, 20, 3), tile=16)


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
