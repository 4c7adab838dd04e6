"""The tile plan, property-tested: every pixel owned once, every origin on the window grid, every inner side with its halo."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashrib.runtime.errors import UsageError
from flashrib.runtime.tiling.plan import Span, TilePlan, plan, plan_axis, smaller, spread

# The same examples in every run: a failure here must be a failure everywhere.
repeatable = settings(derandomize=True, deadline=None, max_examples=300)

lengths = st.integers(1, 700)
multiples = st.sampled_from([1, 2, 7, 8, 16, 64, 96])
tiles = st.integers(1, 300)
halos = st.integers(0, 100)
minimums = st.integers(1, 200)


def up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def check_partition(spans: tuple[Span, ...], length: int, multiple: int) -> None:
    assert spans[0].write_start == 0
    assert spans[-1].write_stop == length
    for left, right in pairwise(spans):
        assert left.write_stop == right.write_start
    for span in spans:
        assert 0 <= span.read_start <= span.write_start < span.write_stop <= span.read_stop <= length
        assert span.read_start % multiple == 0
        assert span.read_stop % multiple == 0 or span.read_stop == length
        assert span.pad >= 0
        assert span.pad == 0 or span.read_stop == length


def check_halo(spans: tuple[Span, ...], length: int, halo: int) -> None:
    for span in spans:
        assert span.read_start == 0 or span.write_start - span.read_start >= halo
        assert span.read_stop == length or span.read_stop - span.write_stop >= halo


@repeatable
@given(length=lengths, tile=tiles, halo=halos, multiple=multiples, minimum=minimums)
def test_plan_of_a_dynamic_session(length: int, tile: int, halo: int, multiple: int, minimum: int) -> None:
    spans = plan_axis(length, tile, halo, multiple, minimum)
    check_partition(spans, length, multiple)
    check_halo(spans, length, halo)
    limit = max(tile // multiple * multiple, multiple) + 2 * up(halo, multiple)
    for span in spans:
        assert span.size >= minimum
        # Only to reach the minimum does a tile read more, and not a whole multiple beyond it.
        assert span.size <= limit or span.size < minimum + multiple
        assert span.pad == 0 or (len(spans) == 1 and span.size == minimum)


@repeatable
@given(length=lengths, tile=tiles, halo=halos, multiple=multiples)
def test_plan_takes_the_fewest_tiles_of_even_size(length: int, tile: int, halo: int, multiple: int) -> None:
    spans = plan_axis(length, tile, halo, multiple, minimum=1)
    inner = max(tile // multiple * multiple, multiple)
    halo = up(halo, multiple)
    if length <= inner + 2 * halo:
        assert len(spans) == 1
    else:
        # One tile less could not own every pixel: an inner tile owns `inner`, the two outer ones a halo more.
        assert (len(spans) - 1) * inner + 2 * halo < length
    sizes = [up(span.size, multiple) for span in spans]
    assert max(sizes) - min(sizes) <= multiple
    # Nothing is read twice but the halos.
    assert sum(sizes) == up(length, multiple) + 2 * halo * (len(spans) - 1)


@repeatable
@given(length=lengths, halo=halos, multiple=multiples, inner=st.integers(1, 5), minimum=minimums, tile=tiles)
def test_plan_of_a_session_of_one_size(
    length: int, halo: int, multiple: int, inner: int, minimum: int, tile: int
) -> None:
    fixed = 2 * up(halo, multiple) + inner * multiple
    spans = plan_axis(length, tile, halo, multiple, minimum, fixed)
    check_partition(spans, length, multiple)
    check_halo(spans, length, halo)
    assert {span.size for span in spans} == {fixed}
    if len(spans) > 1:
        assert (len(spans) - 1) * inner * multiple + 2 * up(halo, multiple) < length
        # Never more completed than the model itself completes to whole windows.
        assert all(span.pad < multiple for span in spans)


AXES = {
    "one tile": ((64, 64, 0, 64, 33), [Span(0, 64, 0, 0, 64)]),
    "a single pixel": ((1, 192, 64, 64, 33), [Span(0, 1, 32, 0, 1)]),
    "short picture, short tile": ((100, 1, 0, 64, 128), [Span(0, 100, 28, 0, 100)]),
    "within tile and halos": ((320, 192, 64, 64, 33), [Span(0, 320, 0, 0, 320)]),
    "one pixel more": ((321, 192, 64, 64, 33), [Span(0, 256, 0, 0, 192), Span(128, 321, 0, 192, 321)]),
    "three tiles": (
        (640, 192, 64, 64, 33),
        [Span(0, 320, 0, 0, 256), Span(192, 512, 0, 256, 448), Span(384, 640, 0, 448, 640)],
    ),
    "tile and halo rounded": ((256, 127, 1, 64, 33), [Span(0, 192, 0, 0, 128), Span(64, 256, 0, 128, 256)]),
    "last tile under the minimum": (
        (130, 64, 0, 64, 33),
        [Span(0, 64, 0, 0, 64), Span(64, 128, 0, 64, 128), Span(64, 130, 0, 128, 130)],
    ),
    "first tile under the minimum": ((384, 1, 0, 64, 250), [Span(0, 256, 0, 0, 192), Span(128, 384, 0, 192, 384)]),
    "one size, short picture": ((40, 1, 64, 64, 33, 128), [Span(0, 40, 88, 0, 40)]),
    "one size off the grid, short picture": ((720, 1, 64, 64, 33, 720), [Span(0, 720, 0, 0, 720)]),
    "one size, two tiles": ((129, 1, 0, 64, 33, 128), [Span(0, 128, 0, 0, 64), Span(64, 129, 63, 64, 129)]),
}


@pytest.mark.parametrize(("arguments", "spans"), AXES.values(), ids=AXES.keys())
def test_plan_axis_by_example(arguments: tuple[int, ...], spans: list[Span]) -> None:
    assert list(plan_axis(*arguments)) == spans


ERRORS = {
    "empty picture": ((0, 64, 0, 64, 33), "the picture side is 0, but it must be at least 1"),
    "tile 0": ((64, 0, 0, 64, 33), "the tile is 0, but it must be at least 1"),
    "negative halo": ((64, 64, -1, 64, 33), "the halo is -1, but it must be at least 0"),
    "multiple 0": ((64, 64, 0, 0, 33), "the multiple is 0, but it must be at least 1"),
    "minimum 0": ((64, 64, 0, 64, 0), "the minimum side is 0, but it must be at least 1"),
    "size off the grid": ((1000, 64, 0, 64, 33, 720), "takes exactly 720 pixels, which is no multiple .* 64.* 1000 "),
    "halos leave nothing": ((300, 64, 65, 64, 33, 256), "takes exactly 256 pixels, .* halo of 128 .* at most 64"),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_plan_axis_refuses(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan_axis(*arguments)


def test_plan_runs_row_by_row() -> None:
    made = plan(130, 200, (64, 64), 0, 64, 1)
    assert [(row.write_start, column.write_start) for row, column in made] == [
        (top, left) for top in (0, 64, 128) for left in (0, 64, 128, 192)
    ]
    assert len(made) == 12
    assert made.largest == (64, 64)
    assert made.overhead == 1.0


def test_plan_counts_what_is_computed_more_than_once() -> None:
    made = plan(640, 10, (192, 192), 64, 64, 33)
    assert isinstance(made, TilePlan)
    assert made.largest == (320, 33)
    assert made.overhead == (256 + 320 + 320) * 33 / (640 * 10)


def test_plan_with_a_fixed_size() -> None:
    made = plan(100, 300, (1, 1), 0, 64, 33, (128, 192))
    assert {(row.size, column.size) for row, column in made} == {(128, 192)}
    assert len(made) == 2


@pytest.mark.parametrize(
    ("tile", "expected"),
    [
        ((192, 192), (192, 64)),
        ((192, 64), (64, 64)),
        ((256, 128), (128, 128)),
        ((200, 300), (192, 128)),
        ((64, 128), (64, 64)),
        ((64, 64), None),
        ((1, 127), None),
    ],
)
def test_smaller(tile: tuple[int, int], expected: tuple[int, int] | None) -> None:
    assert smaller(tile, 64) == expected


@repeatable
@given(height=tiles, width=tiles, multiple=multiples)
def test_smaller_ends_at_one_multiple(height: int, width: int, multiple: int) -> None:
    tile: tuple[int, int] | None = (height * 50, width * 50)
    steps = 0
    while tile is not None:
        last, tile, steps = tile, smaller(tile, multiple), steps + 1
    assert max(1, last[0] // multiple) == max(1, last[1] // multiple) == 1
    assert steps < 40


@pytest.mark.parametrize(
    ("picture", "most", "devices", "tile", "tiles"),
    [
        ((1000, 1000), 1 << 22, 1, None, 1),
        ((1000, 1000), 1 << 22, 2, None, 2),
        ((4896, 6528), 1 << 22, 1, None, None),
        ((4896, 6528), 1 << 22, 2, None, None),
        ((64, 10000), 1 << 22, 4, None, 4),
        ((640, 640), 100, 1, (64, 64), None),
    ],
)
def test_spread(
    picture: tuple[int, int], most: int, devices: int, tile: tuple[int, int] | None, tiles: int | None
) -> None:
    chosen = spread(*picture, 64, 64, 33, most, devices)
    assert tile in (None, chosen)
    made, (height, width) = plan(*picture, chosen, 64, 64, 33), picture
    assert tiles in (None, len(made))
    if most > 192 * 192:
        assert made.largest[0] * made.largest[1] <= most

    def slowest(of: TilePlan) -> float:
        return -(-len(of) // devices) * of.overhead * height * width / len(of)

    # No tile of equal sides that fits is better.
    for side in range(64, 4096, 64):
        other = plan(*picture, (side, side), 64, 64, 33)
        if other.largest[0] * other.largest[1] <= most:
            assert slowest(made) <= slowest(other) * (1 + 1e-9)
