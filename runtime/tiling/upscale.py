"""Upscales pictures with a session, tile by tile.

The memory of the network is bounded by the tile, everywhere. The memory of pixels is bounded by bands of tiles in
`upscale_stream`, if its source and sink hold no more; `upscale_array` and `upscale_picture` take a whole picture and return a
whole one.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import OutOfMemoryError, UsageError
from flashrib.runtime.pictures.alpha import fill_transparent
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.pictures.sink import ArraySink, Sink
from flashrib.runtime.pictures.source import ArraySource, Source
from flashrib.runtime.progress import Progress
from flashrib.runtime.sessions.protocol import Pixels, Session
from flashrib.runtime.tiling import remembered
from flashrib.runtime.tiling.plan import TilePlan, plan, smaller, spread
from flashrib.runtime.tiling.run import run_tiles

DEFAULT_TILE = 256
"""Input pixels that an inner tile owns on each side."""

DEFAULT_HALO = 64
"""Input pixels of context on each inner side of a tile."""


def upscale_picture(
    session: Session,
    picture: Picture,
    *,
    tile: int | tuple[int, int] | None = None,
    halo: int | None = None,
    progress: Progress | None = None,
) -> Picture:
    """Upscale a picture with everything that belongs to it.

    Colours under full transparency are filled from their visible neighbours before, so that they do not bleed into the
    edges. Alpha goes through the same network as a gray picture; alpha of one value everywhere stays this value.

    Args:
        session: the loaded model.
        picture: what to upscale; stays as it is.
        tile: see `upscale_array`.
        halo: see `upscale_array`.
        progress: see `upscale_array`; colour and alpha count as one.

    Returns:
        The picture scale times as high and wide, of the same dtype, gray if it was, with all that belongs to it.

    Raises:
        UsageError, OutOfMemoryError, SessionError: as `upscale_array`.
    """
    parts = planes(picture)

    def report(finished: int) -> Progress | None:
        if progress is None:
            return None
        return lambda done, total: progress(finished * total + done, len(parts) * total)

    upscaled = [
        upscale_array(session, part, tile=tile, halo=halo, progress=report(number)) for number, part in enumerate(parts)
    ]
    return joined(picture, upscaled)


def planes(picture: Picture) -> list[Pixels]:
    """Return what of a picture goes through a network: (H, W, 3) colours or (H, W) gray, and (H, W) alpha if it has a shape.

    Colours under full transparency are filled from their visible neighbours.
    """
    alpha = picture.alpha
    has_shape = alpha is not None and bool((alpha != alpha[0, 0]).any())
    pixels = picture.pixels if alpha is None or not has_shape else fill_transparent(picture.pixels, alpha)
    colours = pixels[:, :, 0] if picture.gray else pixels
    return [colours] if alpha is None or not has_shape else [colours, alpha]


def joined(picture: Picture, upscaled: Sequence[Pixels]) -> Picture:
    """Return the picture that a network made of the `planes` of another, with all that belongs to that."""
    colours, *alphas = upscaled
    if picture.gray:
        colours = np.repeat(colours[:, :, None], 3, axis=2)
    alpha = alphas[0] if alphas else None
    if alpha is None and picture.alpha is not None:
        alpha = np.full(colours.shape[:2], picture.alpha[0, 0], picture.alpha.dtype)
    return dataclasses.replace(picture, pixels=colours, alpha=alpha)


def upscale_array(
    session: Session,
    pixels: Pixels,
    *,
    tile: int | tuple[int, int] | None = None,
    halo: int | None = None,
    progress: Progress | None = None,
) -> Pixels:
    """Upscale the pixels of a picture.

    Args:
        session: the loaded model.
        pixels: (H, W, 3) RGB, or (H, W) gray, which goes in as three equal channels and comes out as their mean. uint8 and
            uint16 over their whole range, or float32, nominally 0..1.
        tile: input pixels that an inner tile owns, one number or (height, width); None: the whole picture for models
            that look at it as a whole, what fits and spreads best for sessions on GPUs (see `flashrib.runtime.tiling.plan.spread`),
            otherwise `DEFAULT_TILE`. Of no meaning for sessions of a fixed size.
        halo: input pixels of context on each inner side of a tile; None: `DEFAULT_HALO`.
        progress: called with (input pixels done, input pixels in all) before the first and after each tile; it goes
            back to the rows that are written when a tile did not fit into memory and smaller ones are tried.

    Returns:
        (scale*H, scale*W, 3), or (scale*H, scale*W), of the dtype of `pixels`. Integers are rounded half to even after
        clamping to the range; float32 is not clamped.

    Raises:
        UsageError: pixels, tile or halo that are invalid.
        OutOfMemoryError: not even the smallest tiles fit, or tiles would change what a model that looks at the whole
            picture makes of it and were not asked for.
        SessionError: the session failed, or returned NaN, infinity or a wrong shape.
    """
    _check_pixels(pixels)
    output = _allocate_output(session.info, pixels)
    upscale_stream(session, ArraySource(pixels), ArraySink(output), tile=tile, halo=halo, progress=progress)
    return output


def upscale_stream(
    session: Session,
    source: Source,
    sink: Sink,
    *,
    tile: int | tuple[int, int] | None = None,
    halo: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Upscale what `source` has into `sink`, in bands of rows from top to bottom.

    After a tile that did not fit into memory, smaller ones are tried from the first row on that is not written yet.

    Args:
        session: the loaded model.
        source: what to upscale.
        sink: takes scale times as many rows and columns, of the same type and number of channels.
        tile: see `upscale_array`.
        halo: see `upscale_array`.
        progress: see `upscale_array`.

    Raises:
        UsageError, OutOfMemoryError, SessionError: as `upscale_array`.
        PictureError: of `source` or `sink`.
    """
    info = session.info
    height, width = source.height, source.width
    halo = DEFAULT_HALO if halo is None else halo
    sides = tile_sides(session, tile, halo, height, width)
    current = plan(height, width, sides, halo, info.alignment, info.minimum, info.fixed_size)
    shrunk = False
    while (row := run_tiles(session, source, current, sink, progress)) < height:
        # Outside of any except clause: its traceback would keep the arrays of the tile that did not fit.
        if info.whole_picture and tile is None and info.fixed_size is None:
            raise OutOfMemoryError(
                f"the picture of {width}x{height} pixels does not fit into memory in one piece, and this model looks at the"
                f" whole picture, so that tiles change the result: to accept that, ask for them, as with a tile of 256"
            )
        sides, current = _smaller_plan(info, sides, halo, current.below(row))
        shrunk = True
    if shrunk and info.fixed_size is None:
        remembered.remember(session.place, current.largest[0] * current.largest[1])


def _check_pixels(pixels: Pixels) -> None:
    """Raise UsageError for anything but (H, W, 3) or (H, W) of a known dtype."""
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise UsageError(f"the pixels are {pixels.dtype}, but they must be uint8, uint16 or float32")
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)) or pixels.size == 0:
        raise UsageError(f"the pixels have the shape {pixels.shape}, but it must be (H, W, 3) or (H, W), not empty")


def tile_sides(
    session: Session,
    tile: int | tuple[int, int] | None,
    halo: int,
    height: int,
    width: int,
    devices: int | None = None,
) -> tuple[int, int]:
    """Return the (height, width) that a tile owns, no larger than the picture needs.

    Args:
        session: whose model and memory decide.
        tile: see `upscale_array`.
        halo: input pixels of context.
        height: of the picture.
        width: of the picture.
        devices: that share the picture; None: all of the session.
    """
    info = session.info
    if tile is None and not (info.whole_picture or info.fixed_size):
        fitted = remembered.most_pixels(session.place)
        if (most := session.most_pixels()) is not None:
            most = most if fitted is None else min(most, fitted)
            devices = devices or len(session.workers)
            return spread(height, width, halo, info.alignment, info.minimum, most, devices)
        tile = DEFAULT_TILE
        while fitted is not None and (tile + 2 * halo) ** 2 > fitted and tile > info.alignment:
            tile //= 2
    if tile is None:
        tile = max(height, width) if info.whole_picture else DEFAULT_TILE
    tile_height, tile_width = (tile, tile) if isinstance(tile, int) else tile
    # Halving a tile that is larger than the picture would gain nothing.
    return min(tile_height, _whole_multiples(height, info)), min(tile_width, _whole_multiples(width, info))


def _whole_multiples(length: int, info: ModelInfo) -> int:
    return -(-length // info.alignment) * info.alignment


def _allocate_output(info: ModelInfo, pixels: Pixels) -> Pixels:
    shape = (pixels.shape[0] * info.scale, pixels.shape[1] * info.scale, *pixels.shape[2:])
    try:
        return np.empty(shape, pixels.dtype)
    except MemoryError as error:
        raise OutOfMemoryError(
            f"the result of {shape[1]}x{shape[0]} pixels does not fit into memory: upscale the picture in parts, or use a"
            " machine with more memory"
        ) from error


def _smaller_plan(
    info: ModelInfo, sides: tuple[int, int], halo: int, failed: TilePlan
) -> tuple[tuple[int, int], TilePlan]:
    """Return the next smaller (tile, plan) that needs less memory than `failed`, or raise OutOfMemoryError."""
    size = failed.largest
    while info.fixed_size is None and (next_sides := smaller(sides, info.alignment)) is not None:
        sides = next_sides
        made = plan(failed.height, failed.width, sides, halo, info.alignment, info.minimum)
        made = made.below(failed.rows[0].write_start)
        if made.largest[0] * made.largest[1] < size[0] * size[1]:
            return sides, made
    mend = (
        "the model takes only this size: export it with a smaller one"
        if info.fixed_size
        else f"these are the smallest tiles with a halo of {halo}: use a smaller halo"
    )
    raise OutOfMemoryError(
        f"a tile of {size[1]}x{size[0]} pixels does not fit into memory, and {mend}, or leave more memory to this process"
    )
