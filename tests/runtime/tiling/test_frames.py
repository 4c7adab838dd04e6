"""Frames through a session: the same as one after the other, with several in work where a device takes them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from flashrib.runtime.errors import OutOfMemoryError
from flashrib.runtime.sessions.base import OneByOne
from flashrib.runtime.sessions.protocol import Pixels
from flashrib.runtime.tiling.frames import upscale_frames
from flashrib.runtime.tiling.upscale import upscale_array
from tests.runtime.sessions.fakes import BlurredWindowSession, SmallMemorySession


def frames(count: int, height: int = 32, width: int = 48) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(2)
    return [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count)]


class Queued:
    """A worker that has several tiles in work, each computed when it is collected."""

    def __init__(self, session: BlurredWindowSession, ahead: int, log: list[str], name: str) -> None:
        self.ahead, self._session, self._log, self._name = ahead, session, log, name
        self._waiting: list[tuple[Pixels, slice, slice, str]] = []

    def submit(self, pixels: Pixels, rows: slice, columns: slice, where: str) -> None:
        assert len(self._waiting) < self.ahead
        self._waiting.append((pixels, rows, columns, where))
        self._log.append(f"{self._name}+")

    def collect(self, target: Pixels) -> None:
        self._log.append(f"{self._name}-")
        worker = OneByOne(self._session)
        worker.submit(*self._waiting.pop(0))
        worker.collect(target)

    def abandon(self) -> None:
        self._waiting.clear()


class Several(SmallMemorySession):
    """A session of two such devices."""

    def __init__(self, limit: int = 10**9) -> None:
        super().__init__()
        self.limit = limit
        self.log: list[str] = []
        self.both = (Queued(self, 2, self.log, "a"), Queued(self, 2, self.log, "b"))

    @property
    def workers(self) -> tuple[Queued, ...]:
        return self.both


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_order_and_content(count: int) -> None:
    session = Several()
    given = frames(count)
    seen = list(upscale_frames(session, given))
    for one, pixels in zip(seen, given, strict=True):
        np.testing.assert_array_equal(one, upscale_array(BlurredWindowSession(), pixels))


def test_devices_have_work_ahead() -> None:
    session = Several()
    list(upscale_frames(session, frames(6)))
    assert session.log[:4] == ["a+", "b+", "a+", "b+"]
    assert session.log[4:8] == ["a-", "a+", "b-", "b+"]


def test_devices_do_not_share_a_frame_that_one_of_them_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Several()
    monkeypatch.setattr(session, "most_pixels", lambda: 200 * 200)
    given = frames(6, 128, 160)
    seen = list(upscale_frames(session, given, halo=16))
    assert session.log[:4] == ["a+", "b+", "a+", "b+"]
    assert session.shapes == [(128, 160)] * 6
    for one, pixels in zip(seen, given, strict=True):
        np.testing.assert_array_equal(one, upscale_array(BlurredWindowSession(), pixels))


def test_devices_share_a_frame_that_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Several()
    monkeypatch.setattr(session, "most_pixels", lambda: 200 * 200)
    (given,) = frames(1, 128, 160)
    (seen,) = upscale_frames(session, [given], halo=16)
    assert len(session.shapes) == 2
    np.testing.assert_array_equal(seen, upscale_array(BlurredWindowSession(), given))


def test_tiles_and_whole_frames_are_equal() -> None:
    given = frames(4, 70, 90)
    seen = list(upscale_frames(Several(), given, tile=32, halo=16))
    for one, pixels in zip(seen, given, strict=True):
        np.testing.assert_array_equal(one, upscale_array(BlurredWindowSession(), pixels, tile=32, halo=16))


def test_frames_that_do_not_fit_go_tile_by_tile() -> None:
    given = frames(5, 64, 64)
    session = Several(limit=64 * 64 - 1)
    seen = list(upscale_frames(session, given, halo=16))
    for one, pixels in zip(seen, given, strict=True):
        np.testing.assert_array_equal(one, upscale_array(BlurredWindowSession(), pixels, tile=24, halo=16))
    assert max(height * width for height, width in session.shapes[1:]) <= 64 * 64


def test_sizes_that_differ() -> None:
    given = frames(2) + frames(3, 64, 64) + frames(2, 20, 24) + frames(2)
    session = Several(limit=50 * 50)
    seen = list(upscale_frames(session, given, halo=16))
    assert [one.shape[0] for one in seen] == [2 * pixels.shape[0] for pixels in given]
    np.testing.assert_array_equal(seen[-1], upscale_array(BlurredWindowSession(), given[-1]))
    assert (32, 48) in session.shapes[-2:], "smaller ones go whole after a larger one did not fit"


def test_progress_is_that_of_the_next_frame() -> None:
    seen: list[tuple[int, int]] = []
    given = [*frames(2), *frames(1, 70, 90)]
    results = upscale_frames(Several(), given, tile=32, halo=0, progress=lambda done, total: seen.append((done, total)))
    for pixels in given:
        next(results)
        assert seen[-1] == (pixels[..., 0].size, pixels[..., 0].size)


def test_no_frame_fits() -> None:
    with pytest.raises(OutOfMemoryError, match="smallest tiles"):
        list(upscale_frames(Several(limit=1), frames(3)))


def test_broken_off_in_between() -> None:
    session = Several()
    results = upscale_frames(session, frames(6))
    next(results)
    results.close()
    assert [len(worker._waiting) for worker in session.both] == [0, 0]
