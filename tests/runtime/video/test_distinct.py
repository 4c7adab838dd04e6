"""Which frames reach the network, and what is made of the others, however far the network is ahead."""

from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flashrib.runtime.video.distinct import upscale_distinct
from flashrib.runtime.video.frames import Frame, Pixels


def frame(value: int, number: int) -> Frame:
    return Frame(np.full((2, 2, 3), value, np.uint8), 40 * number, 40)


@given(st.lists(st.integers(0, 2), max_size=12), st.integers(0, 5), st.sets(st.integers(0, 11)))
def test_results_whatever_the_lead(values: list[int], lead: int, unwanted: set[int]) -> None:
    computed: list[int] = []

    def network(pixels: Iterator[Pixels]) -> Iterator[Pixels]:
        waiting: list[Pixels] = []
        for one in pixels:
            computed.append(int(one[0, 0, 0]))
            waiting.append(one + 100)
            if len(waiting) > lead:
                yield waiting.pop(0)
        yield from waiting

    frames = (frame(value, number) for number, value in enumerate(values))
    made = list(upscale_distinct(frames, network, lambda number: number not in unwanted))
    assert [one.frame.pts for one in made] == [40 * number for number in range(len(values))]
    for number, one in enumerate(made):
        if number in unwanted:
            assert one.pixels is None
        else:
            assert one.pixels is not None
            assert (one.pixels == values[number] + 100).all()
            before = number > 0 and number - 1 not in unwanted and values[number - 1] == values[number]
            assert one.computed is not before
    assert len(computed) == sum(one.computed for one in made)


def test_what_is_kept_of_a_frame_and_its_result() -> None:
    frames = (frame(value, number) for number, value in enumerate((1, 1, 2)))
    made = list(upscale_distinct(frames, iter, lambda number: True, lambda source, result: source + result))
    assert [int(one.pixels[0, 0, 0]) for one in made if one.pixels is not None] == [2, 2, 4]
