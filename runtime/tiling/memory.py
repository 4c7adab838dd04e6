"""How much memory the work may take: the size of tiles and the height of bands, by the bytes that are left to the process."""

import contextlib
import math
import os
from pathlib import Path

import numpy as np

from flashrib.runtime.errors import OutOfMemoryError
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.plan import TilePlan

TILE_SHARE, BAND_SHARE, HELD_SHARE = 0.45, 0.25, 0.15
"""Parts of the memory that is left for the network's tile, for bands of rows, and for pictures that are held as a whole; encoders and
the allocator have the rest."""

OPEN_BANDS = 3
"""One is written, one is filled, and tiles that run ahead fill a third; see `flashrib.runtime.tiling.run`."""

_PROBE_SIDES = 64, 192  # of the runs that measure the memory of a pixel; the first one loads what libraries keep


def left_of(total: int) -> int:
    """Return the bytes that are left of `total` for this process.

    Raises:
        OutOfMemoryError: it has taken them already.
    """
    taken = _resident()
    if taken >= total:
        raise OutOfMemoryError(
            f"--memory {total // 2**20}M: the program and the model take {-(-taken // 2**20)} MB before there is a picture: give more"
        )
    return total - taken


def bytes_per_pixel(session: Session) -> float:
    """Return by how much the memory of the process grows per input pixel of a tile, by running two of them; 0 where it cannot be told.

    Raises:
        OutOfMemoryError, SessionError: not even that runs.
    """
    info, peaks, areas = session.info, [], []
    for wanted in _PROBE_SIDES:
        side = max(-(-wanted // info.alignment) * info.alignment, info.minimum)
        session.run(np.zeros((1, 3, side, side), np.float32))
        peaks.append(_peak())
        areas.append(side * side)
    return max(0, peaks[1] - peaks[0]) / max(1, areas[1] - areas[0])


def tile_within(session: Session, halo: int, most_bytes: int) -> int | None:
    """Return the side that a tile may own so that the network takes at most so many bytes; None where the session chooses itself.

    Raises:
        OutOfMemoryError: not even the smallest tile fits.
    """
    info = session.info
    if info.fixed_size is not None or info.whole_picture or info.noise or session.most_pixels() is not None:
        return None
    if not (each := bytes_per_pixel(session)):
        return None
    side = (int(math.sqrt(most_bytes / each)) - 2 * halo) // info.alignment * info.alignment
    if side < 1:
        least = (info.alignment + 2 * halo) ** 2 * each / TILE_SHARE
        raise OutOfMemoryError(
            f"the smallest tile, {info.alignment} with a halo of {halo}, takes more than --memory leaves: give {least / 2**20:.0f} MB"
            " more, or use a smaller --halo"
        )
    return side


def flatter(
    sides: tuple[int, int], halo: int, alignment: int, width: int, row_bytes: int, most_bytes: int
) -> tuple[int, int]:
    """Return tiles, at most as large as those of `sides`, so low that bands of them fit into `most_bytes`; they are wider instead.

    Args:
        sides: (height, width) in input pixels that a tile owns.
        halo: context on each side.
        alignment: window alignment of the model.
        width: of the picture.
        row_bytes: of the result, and of the source, per row of the input.
        most_bytes: for `OPEN_BANDS` bands.
    """
    rows = max(alignment, most_bytes // (OPEN_BANDS * row_bytes) // alignment * alignment)
    if rows >= sides[0]:
        return sides
    area = (sides[0] + 2 * halo) * (sides[1] + 2 * halo)
    columns = (area // (rows + 2 * halo) - 2 * halo) // alignment * alignment
    return rows, max(alignment, min(columns, -(-width // alignment) * alignment))


def area_of(plan: TilePlan) -> int:
    """Input pixels of the largest tile of a plan."""
    return plan.largest[0] * plan.largest[1]


def _resident() -> int:
    """Bytes of memory that this process has now; 0 where it cannot be told."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _peak() -> int:
    """The most bytes that it has had; 0 where it cannot be told."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    return 0
