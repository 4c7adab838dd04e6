"""Upscales animations and TIFFs of several pages, picture by picture."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.animation import Animation, not_written_because, read_frames, write_frames
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.upscale import upscale_picture


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
    count = len(animation.durations)
    size: list[tuple[int, int]] = []

    def upscaled() -> Iterator[Picture]:
        before: tuple[Picture, Picture] | None = None
        for number, frame in enumerate(read_frames(source, animation)):
            size.append((frame.height, frame.width))
            if before is not None and _equal(before[0], frame):
                yield before[1]
                continue

            def report(done: int, total: int, number: int = number) -> None:
                if progress is not None:
                    progress(1000 * number + 1000 * done // total, 1000 * count)

            result = upscale_picture(session, frame, tile=tile, halo=halo, progress=report)
            before = frame, result
            yield result

    lost = write_frames(target, upscaled(), animation, quality, strip=strip)
    return *size[0], lost


def _equal(one: Picture, other: Picture) -> bool:
    alphas = (one.alpha is None, other.alpha is None)
    if alphas[0] != alphas[1] or not np.array_equal(one.pixels, other.pixels):
        return False
    return one.alpha is None or other.alpha is None or np.array_equal(one.alpha, other.alpha)
