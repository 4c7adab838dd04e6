"""Frames through a network that may be some frames ahead: those that equal the one before are not computed again."""

import dataclasses
from collections import deque
from collections.abc import Callable, Generator, Iterator

import numpy as np

from flashrib.runtime.video.frames import Frame, Pixels

Upscale = Callable[[Iterator[Pixels]], Iterator[Pixels]]
"""Maps frames, (H, W, 3) or (H, W), to larger ones in order; may ask for some more before it gives the first."""

_NOTHING = np.empty((0, 0), np.uint8)


@dataclasses.dataclass(frozen=True)
class Upscaled:
    """A frame of the result.

    Attributes:
        frame: what is known about it, without its pixels.
        pixels: of the result; None: it is not wanted.
        computed: False where the result is that of the frame before.
    """

    frame: Frame
    pixels: Pixels | None
    computed: bool


def upscale_distinct(
    frames: Iterator[Frame],
    upscale: Upscale,
    is_wanted: Callable[[int], bool],
    finished: Callable[[Pixels, Pixels], Pixels] | None = None,
) -> Generator[Upscaled]:
    """Yield all frames in order, upscaled where they are wanted.

    Args:
        frames: the video's.
        upscale: the network.
        is_wanted: says of the number of a frame whether its result is wanted.
        finished: makes what is kept as the result out of (a frame, its result); None: the result itself.
    """
    # Frame without pixels, whether it is wanted, whether it is computed; and the pixels of those that are.
    ahead: deque[tuple[Frame, bool, bool]] = deque()
    sources: deque[Pixels] = deque()

    def distinct() -> Iterator[Pixels]:
        before: Pixels | None = None
        for number, frame in enumerate(frames):
            wanted = is_wanted(number)
            computed = wanted and (before is None or not np.array_equal(before, frame.pixels))
            ahead.append((dataclasses.replace(frame, pixels=_NOTHING), wanted, computed))
            before = frame.pixels if wanted else None
            if computed:
                if finished is not None:
                    sources.append(frame.pixels)
                yield frame.pixels

    last: Pixels | None = None

    def others() -> Iterator[Upscaled]:
        """The frames before the next that is computed."""
        while ahead and not ahead[0][2]:
            frame, wanted, _ = ahead.popleft()
            yield Upscaled(frame, last if wanted else None, False)

    for result in upscale(distinct()):
        yield from others()
        frame, _, _ = ahead.popleft()
        last = result if finished is None else finished(sources.popleft(), result)
        yield Upscaled(frame, last, True)
        yield from others()
    yield from others()
