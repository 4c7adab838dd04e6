"""Colours under transparency, so that a picture and its alpha can be upscaled separately without fringes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS_AT_ONCE = 64


def fill_transparent(pixels: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    """Give every fully transparent pixel the colour of the nearest visible one.

    What lies hidden under alpha 0 is arbitrary, often black. Left there, the network and every resampling filter drag it
    into the visible edge: the dark fringe.

    Nearest is by city-block distance, found exactly with running minima: first the nearest visible row within each column,
    then along each row the least of (that distance + columns travelled). Time and memory grow linearly with the pixels.

    Args:
        pixels: (H, W, C), any type.
        alpha: (H, W); 0 is fully transparent, anything else is visible.

    Returns:
        (H, W, C) of the same type: a new array, or `pixels` itself where nothing is hidden or nothing is visible.
    """
    visible = alpha != 0
    if visible.all() or not visible.any():
        return pixels
    source_row = _nearest_visible_row(visible)
    filled = pixels.copy()
    width = alpha.shape[1]
    columns = np.arange(width)
    for top in range(0, alpha.shape[0], ROWS_AT_ONCE):
        rows = np.arange(top, min(top + ROWS_AT_ONCE, alpha.shape[0]))
        hidden = ~visible[rows]
        if not hidden.any():
            continue
        candidate = source_row[rows]
        # A column without any visible pixel is farther away than everything else.
        distance = np.where(candidate >= 0, np.abs(candidate - rows[:, None]), sum(alpha.shape))
        # Cost and column in one integer, so that a running minimum carries its column along.
        from_left = np.minimum.accumulate((distance - columns + width) * width + columns, axis=1)
        from_right = np.minimum.accumulate(((distance + columns) * width + columns)[:, ::-1], axis=1)[:, ::-1]
        left_is_nearer = from_left // width - width + columns <= from_right // width - columns
        column = np.where(left_is_nearer, from_left % width, from_right % width)[hidden]
        row_here, _ = np.nonzero(hidden)
        filled[top : top + len(rows)][hidden] = pixels[candidate[row_here, column], column]
    return filled


def _nearest_visible_row(visible: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Row of the nearest visible pixel in the same column, per pixel; -1 where the column has none."""
    height = visible.shape[0]
    rows = np.arange(height, dtype=np.int32)[:, None]
    above = np.maximum.accumulate(np.where(visible, rows, np.int32(-1)), axis=0)
    below = np.minimum.accumulate(np.where(visible, rows, np.int32(2 * height))[::-1], axis=0)[::-1]
    nearest = np.where((above >= 0) & (rows - above <= below - rows), above, below)
    return np.where(nearest < height, nearest, np.int32(-1))
