"""The tile plan: which part of a picture each run of the model reads, and which part of the result it owns.

Pure arithmetic in input pixels, no arrays. A network with window attention lays its windows from the origin of what it is
given: an origin that is not a multiple of the window alignment changes the partition of the whole tile, and no overlap
repairs that. So every tile starts at a multiple, inner tiles end at one, and the last tile ends exactly where the picture
does: there the network pads by reflection the very same pixels as in the whole picture.
"""

import dataclasses
import itertools
from collections.abc import Iterator

from flashrib.runtime.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Span:
    """One tile along one axis, in input pixels.

    Attributes:
        read_start: first pixel read; a multiple of the alignment.
        read_stop: end of the pixels read, at most the picture's end.
        pad: pixels to complete by reflection after `read_stop`.
        write_start: first pixel whose output this tile owns.
        write_stop: end of those pixels; read_start <= write_start < write_stop <= read_stop.
    """

    read_start: int
    read_stop: int
    pad: int
    write_start: int
    write_stop: int

    @property
    def size(self) -> int:
        """Pixels that the session gets along this axis, with the padded ones."""
        return self.read_stop - self.read_start + self.pad


@dataclasses.dataclass(frozen=True)
class TilePlan:
    """Rows x columns of tiles over a picture; iterating yields (row, column) spans, row by row."""

    height: int
    width: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def __iter__(self) -> Iterator[tuple[Span, Span]]:
        return ((row, column) for row in self.rows for column in self.columns)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def below(self, row: int) -> "TilePlan":
        """Return the part of the plan that owns the rows from `row` on, 0 <= row < height; its first tiles own what they did not."""
        rows = [span for span in self.rows if span.write_stop > row]
        rows[0] = dataclasses.replace(rows[0], write_start=max(row, rows[0].write_start))
        return dataclasses.replace(self, rows=tuple(rows))

    @property
    def largest(self) -> tuple[int, int]:
        """(height, width) of the largest tile that the session gets: what decides over the memory."""
        return max(row.size for row in self.rows), max(column.size for column in self.columns)

    @property
    def overhead(self) -> float:
        """Pixels computed / pixels of the picture, >= 1."""
        computed = sum(row.size for row in self.rows) * sum(column.size for column in self.columns)
        return computed / (self.height * self.width)


def plan(
    height: int,
    width: int,
    tile: tuple[int, int],
    halo: int,
    multiple: int,
    minimum: int,
    fixed: tuple[int, int] | None = None,
) -> TilePlan:
    """Plan both axes of a picture; see `plan_axis`.

    Args:
        height: of the picture, >= 1.
        width: of the picture, >= 1.
        tile: (height, width) that an inner tile owns.
        halo: context on each inner side of a tile.
        multiple: window alignment of the model.
        minimum: smallest side that the model takes.
        fixed: (height, width) of the only size that the session takes, if it is such a session.

    Raises:
        UsageError: a number out of its range, or a fixed size that cannot cover the picture.
    """
    fixed_height, fixed_width = fixed or (None, None)
    rows = plan_axis(height, tile[0], halo, multiple, minimum, fixed_height)
    columns = plan_axis(width, tile[1], halo, multiple, minimum, fixed_width)
    return TilePlan(height, width, rows, columns)


def plan_axis(
    length: int, tile: int, halo: int, multiple: int, minimum: int, fixed: int | None = None
) -> tuple[Span, ...]:
    """Divide one axis of a picture into the fewest tiles, sized as evenly as the alignment allows.

    An inner tile owns at most `tile` pixels and reads `halo` more on both sides. A tile at the picture's border has no
    halo there and owns that much more instead: no tile reads more than tile + 2 * halo pixels (but for `minimum`), and a
    picture of at most this length is not divided.

    Args:
        length: of the picture along this axis, >= 1.
        tile: pixels that an inner tile owns; rounded down to a multiple, at least one multiple and as many as `minimum`
            needs. Of no meaning with `fixed`.
        halo: pixels of context on each inner side, >= 0; rounded up to a multiple.
        multiple: window alignment, >= 1.
        minimum: pixels that the model needs at least, >= 1. A shorter tile reads further to the left (to the right if it
            is the first); a shorter picture is padded by reflection.
        fixed: pixels that every tile must have exactly, for sessions of one size.

    Returns:
        Spans in order; together they own every pixel exactly once.

    Raises:
        UsageError: a number out of its range; `fixed` is no multiple of `multiple`, or not more than both halos, though the
            picture needs several tiles.
    """
    for name, value, least in (
        ("picture side", length, 1),
        ("tile", tile, 1),
        ("halo", halo, 0),
        ("multiple", multiple, 1),
        ("minimum side", minimum, 1),
        ("fixed size", fixed, 1),
    ):
        if value is not None and value < least:
            raise UsageError(f"the {name} is {value}, but it must be at least {least}")

    # From here on in units of `multiple`; the last unit of the picture may be a partial one.
    units = -(-length // multiple)
    halo_units = -(-halo // multiple)
    if fixed is not None:
        if length <= fixed:
            return (Span(0, length, fixed - length, 0, length),)
        _check_fixed(length, fixed, halo_units, multiple)
        reads = _fixed_reads(units, fixed // multiple, halo_units)
    else:
        tile_units = max(tile // multiple, 1, -(-minimum // multiple) - 2 * halo_units)
        if units <= tile_units + 2 * halo_units:
            return (Span(0, length, max(0, minimum - length), 0, length),)
        reads = _even_reads(units, tile_units, halo_units)

    # Neighbours overlap by two halos or more; the border between what they own is in the middle.
    borders = [(right[0] + left[1]) // 2 for left, right in itertools.pairwise(reads)]
    spans = []
    for (start, stop), write_start, write_stop in zip(reads, [0, *borders], [*borders, units], strict=True):
        if fixed is None:
            start, stop = _widen(start, stop, length, multiple, minimum)
        read_stop = min(stop * multiple, length)
        pad = stop * multiple - read_stop if fixed is not None else 0
        spans.append(Span(start * multiple, read_stop, pad, write_start * multiple, min(write_stop * multiple, length)))
    return tuple(spans)


def smaller(tile: tuple[int, int], multiple: int) -> tuple[int, int] | None:
    """Return the tile to try after (height, width) `tile` did not fit into memory, or None below one multiple.

    The larger side is halved and rounded down to a multiple.
    """
    height, width = (max(side // multiple, 1) for side in tile)
    if height == width == 1:
        return None
    if height > width:
        height //= 2
    else:
        width //= 2
    return height * multiple, width * multiple


def spread(
    height: int, width: int, halo: int, multiple: int, minimum: int, most_pixels: int, devices: int
) -> tuple[int, int]:
    """Return the (height, width) for tiles to own with which a picture is done soonest.

    The device that has most to do gets ceil(tiles / devices) of them, each taken as large as they are on average; this is made as
    small as possible, with the fewest tiles where that leaves a choice.

    Args:
        height: of the picture, >= 1.
        width: of the picture, >= 1.
        halo: context on each inner side of a tile.
        multiple: window alignment of the model.
        minimum: smallest side that the model takes.
        most_pixels: input pixels that a tile may read; if not even one multiple stays below, it is one multiple.
        devices: that share the tiles, >= 1.
    """
    of_width = _divisions(width, halo, multiple, minimum)
    choices = [
        (-(-rows * columns // devices) * high * wide / (rows * columns), rows * columns, tile_height, tile_width)
        for rows, largest_height, high, tile_height in _divisions(height, halo, multiple, minimum)
        for columns, largest_width, wide, tile_width in of_width
        if largest_height * largest_width <= most_pixels
    ]
    if not choices:
        return multiple, multiple
    return min(choices)[2:]


def _divisions(length: int, halo: int, multiple: int, minimum: int) -> list[tuple[int, int, int, int]]:
    """(tiles, pixels that the largest reads, pixels that all read, pixels that one owns) for every number of tiles that an axis can
    have.
    """
    divisions = {}
    for units in range(-(-length // multiple), 0, -1):
        sizes = [span.size for span in plan_axis(length, units * multiple, halo, multiple, minimum)]
        divisions[len(sizes)] = (len(sizes), max(sizes), sum(sizes), units * multiple)
    return list(divisions.values())


def _check_fixed(length: int, fixed: int, halo_units: int, multiple: int) -> None:
    """Raise UsageError where tiles of the size `fixed` cannot cover a longer picture."""
    if fixed % multiple:
        raise UsageError(
            f"the model takes exactly {fixed} pixels, which is no multiple of its window alignment {multiple}, so a picture"
            f" side of {length} cannot be divided into tiles: export the model with a size that is a multiple of {multiple},"
            " or with dynamic sizes"
        )
    if fixed // multiple <= 2 * halo_units:
        most = (fixed // multiple - 1) // 2 * multiple
        raise UsageError(
            f"the model takes exactly {fixed} pixels, of which a halo of {halo_units * multiple} on both sides leaves"
            f" nothing: use a halo of at most {most}"
        )


def _fixed_reads(units: int, size: int, halo: int) -> list[tuple[int, int]]:
    """(start, stop) in units of tiles of one size that overlap by two halos or more, evenly spread."""
    count = -(-(units - 2 * halo) // (size - 2 * halo))
    starts = [index * (units - size) // (count - 1) for index in range(count)]
    return [(start, start + size) for start in starts]


def _even_reads(units: int, tile: int, halo: int) -> list[tuple[int, int]]:
    """(start, stop) in units of the fewest tiles that overlap by two halos, their sizes at most one unit apart."""
    count = -(-(units - 2 * halo) // tile)
    size, larger = divmod(units + 2 * halo * (count - 1), count)
    reads = []
    start = 0
    for index in range(count):
        # The larger ones come first: what does not fit into memory shows at once.
        stop = start + size + (index < larger)
        reads.append((start, stop))
        start = stop - 2 * halo
    return reads


def _widen(start: int, stop: int, length: int, multiple: int, minimum: int) -> tuple[int, int]:
    """Move the start to the left, then the stop to the right, until the read has `minimum` pixels; all in units."""
    end = -(-length // multiple)
    lacking = minimum - (min(stop * multiple, length) - start * multiple)
    start = max(0, start - max(0, -(-lacking // multiple)))
    lacking = minimum - (min(stop * multiple, length) - start * multiple)
    stop = min(end, stop + max(0, -(-lacking // multiple)))
    return start, stop
