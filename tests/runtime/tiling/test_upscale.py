"""Tiled == whole to the last bit, for sessions that depend on the windows' alignment and on context."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flashrib.runtime.errors import OutOfMemoryError, SessionError, UsageError
from flashrib.runtime.pictures.files import Picture
from flashrib.runtime.sessions.protocol import Batch, Session
from flashrib.runtime.tiling.upscale import DEFAULT_HALO, DEFAULT_TILE, upscale_array, upscale_picture
from tests.runtime.sessions.fakes import (
    BlurredWindowSession,
    FakeSession,
    SmallMemorySession,
    WindowSession,
    mirror,
)

repeatable = settings(derandomize=True, deadline=None, max_examples=60)


def noise(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    random = np.random.default_rng(7)
    if dtype == "float32":
        return random.random(shape, np.float32) * 3 - 1
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def as_batch(pixels: NDArray[Any]) -> Batch:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)


def test_fake_sessions_follow_the_protocol() -> None:
    assert isinstance(BlurredWindowSession(), Session)


@repeatable
@given(
    height=st.integers(5, 90),
    width=st.integers(5, 90),
    tile=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    halo=st.integers(4, 20),
)
def test_tiled_equals_whole(height: int, width: int, tile: tuple[int, int], halo: int) -> None:
    session = BlurredWindowSession()
    pixels = noise(height, width, 3, dtype="float32")
    whole = session.run(as_batch(pixels))[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(upscale_array(session, pixels, tile=tile, halo=halo), whole)


def test_the_fake_session_needs_its_halo() -> None:
    session = BlurredWindowSession()
    pixels = noise(40, 40, 3, dtype="float32")
    whole = upscale_array(session, pixels, tile=40, halo=8)
    assert not np.array_equal(upscale_array(session, pixels, tile=16, halo=0), whole)


@repeatable
@given(height=st.integers(1, 90), width=st.integers(1, 90), fixed=st.sampled_from([(24, 32), (48, 24), (96, 96)]))
def test_a_fixed_size_equals_the_whole_picture_completed(height: int, width: int, fixed: tuple[int, int]) -> None:
    session = WindowSession(fixed_size=fixed)
    pixels = noise(height, width, 3, dtype="float32")
    completed = mirror(mirror(pixels, height + 8 * fixed[0], axis=0), width + 8 * fixed[1], axis=1)
    whole = WindowSession().run(as_batch(completed))[0].transpose(1, 2, 0)
    result = upscale_array(session, pixels, tile=1, halo=8)
    np.testing.assert_array_equal(result, whole[: height * 2, : width * 2])
    assert set(session.shapes) == {fixed}


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 3), (4, 40), (5, 5)])
def test_small_pictures_are_completed_to_the_minimum(shape: tuple[int, int]) -> None:
    session = FakeSession(minimum=33, alignment=64)
    pixels = noise(*shape, 3)
    result = upscale_array(session, pixels)
    np.testing.assert_array_equal(result, pixels.repeat(2, axis=0).repeat(2, axis=1))
    assert session.shapes == [(33, max(33, shape[1]))]


def test_completion_is_periodic_reflection() -> None:
    class Recording(FakeSession):
        def change(self, batch: Batch) -> Batch:
            self.seen = batch
            return batch

    session = Recording(minimum=8)
    upscale_array(session, noise(3, 1, 3, dtype="float32") * 0 + np.arange(3, dtype=np.float32)[:, None, None])
    assert session.seen[0, 0, :, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert session.seen[0, 0, 1].tolist() == [1] * 8


@pytest.mark.parametrize(("dtype", "top"), [("uint8", 255), ("uint16", 65535)])
def test_integers_are_scaled_and_return_unchanged(dtype: str, top: int) -> None:
    ramp = np.linspace(0, top, 3 * 300 * 40).astype(dtype).reshape(300, 40, 3)
    result = upscale_array(FakeSession(scale=1), ramp, tile=64, halo=0)
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, ramp)


class Constant(FakeSession):
    """Returns `value` everywhere, or (3 values) in each channel."""

    value: Any = 0.0

    def change(self, batch: Batch) -> Batch:
        return np.zeros_like(batch) + np.asarray(self.value, np.float32).reshape(-1, 1, 1)


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (-0.3, "uint8", 0),
        (1.7, "uint8", 255),
        (1.7, "uint16", 65535),
        (2.5 / 255, "uint8", 2),
        (3.5 / 255, "uint8", 4),
        (2.6 / 255, "uint8", 3),
        (12345 / 65535, "uint16", 12345),
        (-0.3, "float32", np.float32(-0.3)),
        (1.7, "float32", np.float32(1.7)),
    ],
)
def test_clamping_and_rounding(value: float, dtype: str, expected: float) -> None:
    session = Constant()
    session.value = value
    result = upscale_array(session, np.zeros((6, 6, 3), dtype))
    assert result.dtype == dtype
    assert np.unique(result).tolist() == [expected]


def test_gray_arrays_return_the_mean_of_the_channels() -> None:
    session = Constant()
    session.value = [0.1, 0.2, 0.6]
    result = upscale_array(session, noise(20, 30), tile=8, halo=0)
    assert result.shape == (40, 60)
    assert np.unique(result).tolist() == [round(0.3 * 255)]


def test_gray_arrays_equal_three_equal_channels() -> None:
    gray = noise(50, 30)
    three = np.repeat(gray[:, :, None], 3, axis=2)
    session = BlurredWindowSession()
    np.testing.assert_array_equal(
        upscale_array(session, gray, tile=16, halo=8), upscale_array(session, three, tile=16, halo=8)[:, :, 1]
    )


def test_the_sessions_own_array_is_left_alone() -> None:
    class Reusing(FakeSession):
        """Hands out the same read-only array again and again."""

        def run(self, batch: Batch) -> Batch:
            result = super().run(batch)
            result.flags.writeable = False
            return result

    pixels = noise(40, 40, 3)
    np.testing.assert_array_equal(upscale_array(Reusing(scale=1), pixels, tile=16, halo=8), pixels)


@pytest.mark.parametrize("error", [OutOfMemoryError, MemoryError])
def test_out_of_memory_is_answered_with_smaller_tiles(error: type[Exception]) -> None:
    session = SmallMemorySession()
    session.limit, session.error = 32 * 32, error
    pixels = noise(100, 70, 3, dtype="float32")
    result = upscale_array(session, pixels, tile=64, halo=8)
    whole = BlurredWindowSession().run(as_batch(pixels))[0].transpose(1, 2, 0)
    np.testing.assert_array_equal(result, whole)
    areas = [height * width for height, width in session.shapes]
    failed = [area for area in areas if area > session.limit]
    # Each attempt that failed was smaller than the one before, then everything went through once.
    assert failed == sorted(set(failed), reverse=True)
    assert areas[: len(failed)] == failed
    assert len(failed) >= 2


def test_out_of_memory_in_a_later_tile_keeps_the_result_whole() -> None:
    class Failing(BlurredWindowSession):
        def change(self, batch: Batch) -> Batch:
            if len(self.shapes) == 3:
                raise OutOfMemoryError("does not fit")
            return super().change(batch)

    calls: list[tuple[int, int]] = []
    pixels = noise(64, 64, 3, dtype="float32")
    result = upscale_array(Failing(), pixels, tile=32, halo=8, progress=lambda *call: calls.append(call))
    np.testing.assert_array_equal(result, upscale_array(BlurredWindowSession(), pixels, tile=64))
    # The upper half was written: it is not computed again.
    done = [count for count, _ in calls]
    assert (done[:4], done[-1]) == ([0, 1024, 2048, 2048], 64 * 64)
    assert done == sorted(done)


def test_out_of_memory_at_one_multiple_is_an_error() -> None:
    session = SmallMemorySession()
    session.limit = 23 * 24
    with pytest.raises(OutOfMemoryError, match=r"a tile of 24x24 pixels does not fit .* halo of 8: use a smaller halo"):
        upscale_array(session, noise(100, 100, 3), tile=64, halo=8)


def test_out_of_memory_does_not_try_the_same_size_again() -> None:
    session = SmallMemorySession(minimum=33)
    with pytest.raises(OutOfMemoryError, match="does not fit"):
        upscale_array(session, noise(100, 100, 3), tile=64, halo=0)
    # Smaller tiles than the minimum needs read no less.
    assert session.shapes == [(56, 56), (56, 40), (40, 40)]


def test_out_of_memory_of_a_fixed_size_is_an_error() -> None:
    session = SmallMemorySession(fixed_size=(32, 48))
    with pytest.raises(OutOfMemoryError, match=r"a tile of 48x32 pixels .* takes only this size: export it"):
        upscale_array(session, noise(100, 100, 3), halo=8)
    assert len(session.shapes) == 1


def test_whole_picture_models_are_not_tiled_unless_asked() -> None:
    session = FakeSession(whole_picture=True)
    pixels = noise(700, 900, 3)
    upscale_array(session, pixels)
    assert session.shapes == [(700, 900)]
    upscale_array(session, pixels, tile=256, halo=8)
    assert max(session.shapes[1:]) <= (272, 272)


def test_whole_picture_models_are_not_tiled_silently_when_memory_is_short() -> None:
    session = SmallMemorySession(whole_picture=True)
    session.limit = 1000
    with pytest.raises(
        OutOfMemoryError, match=r"the picture of 50x40 pixels .* tiles change the result: .* ask for them"
    ):
        upscale_array(session, noise(40, 50, 3))
    upscale_array(session, noise(40, 50, 3), tile=64, halo=8)


def test_defaults() -> None:
    session = FakeSession(alignment=64, minimum=33)
    upscale_array(session, noise(900, 900, 3))
    assert max(session.shapes) == (DEFAULT_TILE + 2 * DEFAULT_HALO,) * 2


def test_progress_counts_input_pixels() -> None:
    calls: list[tuple[int, int]] = []
    upscale_array(FakeSession(), noise(20, 10, 3), tile=16, halo=0, progress=lambda *call: calls.append(call))
    assert calls == [(0, 200), (160, 200), (200, 200)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_names_the_tile(value: float) -> None:
    class Broken(FakeSession):
        def change(self, batch: Batch) -> Batch:
            result = batch.copy()
            if len(self.shapes) == 4:
                result[0, 1, 3, 2] = value
            return result

    with pytest.raises(
        SessionError, match=r"NaN or infinity for the tile of rows 16\.\.32 and columns 16\.\.32: .*fp32"
    ):
        upscale_array(Broken(), noise(48, 32, 3), tile=16, halo=0)


def test_a_wrong_shape_is_an_error() -> None:
    class Other(FakeSession):
        def run(self, batch: Batch) -> Batch:
            return batch

    with pytest.raises(SessionError, match=r"shape \(1, 3, 6, 7\) for .*, but \(1, 3, 12, 14\) was expected"):
        upscale_array(Other(), noise(6, 7, 3))


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.zeros((4, 4, 3), np.int32), {}, "the pixels are int32"),
        (np.zeros((4, 4, 4), np.uint8), {}, r"the shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), {}, r"the shape \(0, 4, 3\)"),
        (np.zeros((4,), np.uint8), {}, r"the shape \(4,\)"),
        (np.zeros((4, 4, 3), np.uint8), {"tile": 0}, "the tile is 0"),
        (np.zeros((4, 4, 3), np.uint8), {"tile": (8, -1)}, "the tile is -1"),
        (np.zeros((4, 4, 3), np.uint8), {"halo": -8}, "the halo is -8"),
    ],
)
def test_upscale_array_refuses(pixels: NDArray[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        upscale_array(FakeSession(), pixels, **options)


def picture(**changes: Any) -> Picture:
    fields: dict[str, Any] = {"pixels": noise(30, 20, 3), "alpha": None, "gray": False, "icc": b"icc", "exif": b"exif"}
    return Picture(**(fields | changes))


def test_picture_without_alpha_carries_everything_over() -> None:
    source = picture(pixels=noise(30, 20, 3, dtype="uint16"))
    result = upscale_picture(BlurredWindowSession(), source, tile=16, halo=8)
    np.testing.assert_array_equal(result.pixels, upscale_array(BlurredWindowSession(), source.pixels))
    assert (result.alpha, result.gray, result.icc, result.exif) == (None, False, b"icc", b"exif")


def test_gray_picture_stays_gray() -> None:
    session = Constant()
    session.value = [0.1, 0.2, 0.6]
    gray = np.repeat(noise(30, 20, 1), 3, axis=2)
    result = upscale_picture(session, picture(pixels=gray, gray=True))
    assert result.gray
    assert result.pixels.shape == (60, 40, 3)
    assert np.unique(result.pixels).tolist() == [round(0.3 * 255)]


@pytest.mark.parametrize("value", [0, 17, 255])
def test_constant_alpha_does_not_run_the_network(value: int) -> None:
    session = BlurredWindowSession()
    source = picture(alpha=np.full((30, 20), value, np.uint8))
    result = upscale_picture(session, source)
    assert len(session.shapes) == 1
    assert result.alpha is not None
    assert result.alpha.shape == (60, 40)
    assert result.alpha.dtype == np.uint8
    assert np.unique(result.alpha).tolist() == [value]
    np.testing.assert_array_equal(result.pixels, upscale_array(session, source.pixels))


def test_alpha_goes_through_the_network() -> None:
    session = BlurredWindowSession()
    alpha = noise(30, 20)
    calls: list[tuple[int, int]] = []
    result = upscale_picture(session, picture(alpha=alpha), progress=lambda *call: calls.append(call))
    np.testing.assert_array_equal(result.alpha, upscale_array(session, alpha))
    assert calls == [(0, 1200), (600, 1200), (600, 1200), (1200, 1200)]


def test_colours_under_transparency_do_not_bleed() -> None:
    pixels = np.zeros((30, 20, 3), np.uint8)
    alpha = np.zeros((30, 20), np.uint8)
    pixels[:, 10:], alpha[:, 10:] = 200, 255
    before = pixels.copy()
    result = upscale_picture(FakeSession(), picture(pixels=pixels, alpha=alpha))
    # Black under transparency; filled with the only visible colour before the network sees it.
    assert np.unique(result.pixels[:, 18:]).tolist() == [200]
    np.testing.assert_array_equal(pixels, before)
