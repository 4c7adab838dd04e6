"""Tiled TIFF and BigTIFF from rows, through tifffile; where the picture lies on the earth is carried over."""

import importlib
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.errors import MissingPackageError
from flashrib.runtime.pictures.blocks import MOST_THREADS, available_cpus
from flashrib.runtime.pictures.encode import Metadata
from flashrib.runtime.pictures.large.pyramid import levels, passed
from flashrib.runtime.pictures.metadata import EXIF_IFD, GPS_IFD

_fast: Any  # see flashrib.runtime.pictures.png
try:
    from isal import isal_zlib as _fast
except ImportError:
    _fast = None

TILE, LEAST_TILE = 256, 64
TILE_ROW_BYTES = 2**23
"""Bytes of a row of tiles, which wait for one another: tiles of wider pictures are lower, but not lower than `LEAST_TILE`."""
CLASSIC_LIMIT = 2**32 - 2**25
"""Bytes of pixels beyond which a file becomes a BigTIFF, whose offsets have 64 bits."""

Tag = tuple[int, int, int, Any]
_DOUBLE, _SHORT, _ASCII, _UNDEFINED, _BYTE = 12, 3, 2, 7, 1
_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _GEO_KEYS = 33550, 33922, 34264, 34735
_COPIED = {
    34735: _SHORT,
    34736: _DOUBLE,
    34737: _ASCII,
    42112: _ASCII,
    42113: _ASCII,
}  # GeoTIFF's keys, GDAL's metadata and no-data
_DESCRIPTION, _SOFTWARE = 270, 305
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2


def write_tiff(
    file: IO[bytes],
    rows: Iterator[NDArray[Any]],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    metadata: Metadata,
    tags: list[Tag],
    pyramid: Path | None = None,
    ome: bool = False,
) -> None:
    """Write a tiled TIFF, deflated, in the order of its tiles.

    Args:
        file: open for writing and seeking.
        rows: (any number of rows, W, channels), from top to bottom.
        shape: (H, W, channels), channels 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        dtype: uint8 or uint16.
        metadata: all of it is written but for EXIF's sub-directories, see `has_directories`.
        tags: further tags.
        pyramid: folder for temporary files; levels of half the size each follow, as sub-directories. None: there are none.
        ome: an OME-TIFF, whose description is OME-XML.

    Raises:
        MissingPackageError: tifffile is not installed.
        OSError: the file cannot be written.
    """
    tifffile = require_tifffile()
    height, width, channels = shape
    size = height * width * channels * dtype.itemsize
    big = (size if pyramid is None else size * 4 // 3) > CLASSIC_LIMIT
    extra = list(tags)
    extras = metadata.extras
    texts = {tag: text for tag, text in _block(metadata.exif).items() if isinstance(text, str)}
    if ome:
        texts.pop(_DESCRIPTION, None)
    for tag, text in texts.items():
        extra.append((tag, _ASCII, 0, text.encode()))
    for tag, kind, block in (
        (34675, _UNDEFINED, metadata.icc),
        (700, _BYTE, extras.xmp),
        (33723, _UNDEFINED, extras.iptc),
    ):
        if block:
            extra.append((tag, kind, len(block), block))
    density = {"resolution": extras.density, "resolutionunit": "inch"} if extras.density else {}
    same: dict[str, Any] = {
        "dtype": dtype,
        "tile": (TILE if pyramid else tile_height(width * channels * dtype.itemsize), TILE),
        "photometric": "rgb" if channels > 2 else "minisblack",
        "planarconfig": "contig",
        "extrasamples": ["unassalpha"] if channels in (2, 4) else [],
        "compression": "zlib",
    }
    threads = min(MOST_THREADS, available_cpus())
    with (
        tifffile.TiffWriter(file, bigtiff=big, byteorder="<", ome=ome) as writer,
        levels(shape, dtype, pyramid) as smaller,
        ThreadPoolExecutor(threads, "tiff-tiles") as pool,
    ):

        def coded(rows: Iterator[NDArray[Any]], width: int) -> Iterator[bytes]:
            return _coded(_tiles(rows, width, same["tile"][0]), pool, 2 * threads)

        writer.write(
            coded(passed(rows, smaller), width),
            shape=shape if channels > 1 else (height, width),
            extratags=extra,
            metadata={"axes": "YX" if channels == 1 else "YXS"} if ome else None,
            software=False if _SOFTWARE in texts else "flashrib",
            subifds=len(smaller) or None,
            **same,
            **density,
        )
        for level in smaller:
            writer.write(
                coded(level.rows(), level.shape[1]),
                shape=level.shape if channels > 1 else level.shape[:2],
                subfiletype=1,
                metadata=None,
                software=False,
                **same,
            )


def has_directories(exif: bytes | None) -> bool:
    """Whether an EXIF block says more than texts about the picture: how it was taken, and where."""
    block = _block(exif)
    return EXIF_IFD in block or GPS_IFD in block


def _block(exif: bytes | None) -> Image.Exif:
    block = Image.Exif()
    if exif:
        block.load(exif)
    return block


def scaled_geo_tags(path: Path, scale: int) -> list[Tag]:
    """Return the tags that say where a TIFF lies on the earth, for the same picture `scale` times as large.

    Source: OGC GeoTIFF 1.1, sections 7.1 and B.6. Pixels become smaller; tie points and the origin stay where they are on the ground,
    the corner of the first pixel, or its middle where the file counts from the middle of pixels (GTRasterTypeGeoKey 2).

    Raises:
        MissingPackageError: tifffile is not installed.
    """
    tifffile = require_tifffile()
    try:
        with tifffile.TiffFile(path) as tiff:
            found = {tag.code: tag.value for tag in tiff.pages[0].tags}
    except tifffile.TiffFileError:
        return []
    tags: list[Tag] = []
    for code, kind in _COPIED.items():
        if code in found:
            value = found[code]
            tags.append((code, kind, 0 if kind == _ASCII else len(value), value))
    keys = found.get(_GEO_KEYS, ())
    point = any(keys[i] == _RASTER_TYPE and keys[i + 3] == _PIXEL_IS_POINT for i in range(4, len(keys) - 3, 4))
    if _PIXEL_SCALE in found:
        sx, sy, sz = found[_PIXEL_SCALE]
        tags.append((_PIXEL_SCALE, _DOUBLE, 3, (sx / scale, sy / scale, sz)))
    if _TIE_POINTS in found:
        moved = []
        values = found[_TIE_POINTS]
        for i in range(0, len(values), 6):
            column, row, *rest = values[i : i + 6]
            moved += [_moved(column, scale, point), _moved(row, scale, point), *rest]
        tags.append((_TIE_POINTS, _DOUBLE, len(moved), tuple(moved)))
    if _TRANSFORMATION in found:
        matrix = np.array(found[_TRANSFORMATION], np.float64).reshape(4, 4)
        # Pixel of the result -> pixel of the source -> ground.
        shift = (1 - scale) / (2 * scale) if point else 0.0
        back = np.array([[1 / scale, 0, 0, shift], [0, 1 / scale, 0, shift], [0, 0, 1, 0], [0, 0, 0, 1]])
        tags.append((_TRANSFORMATION, _DOUBLE, 16, tuple((matrix @ back).ravel().tolist())))
    return tags


def require_tifffile() -> Any:
    """Return the module `tifffile`.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module("tifffile")
    except ImportError as error:
        raise MissingPackageError("tifffile", "a tiled TIFF", "large") from error


def _moved(position: float, scale: int, point: bool) -> float:
    """Return where a place of the source lies in the result, in pixels from the corner, or from the middle of the first pixel."""
    return (position + 0.5) * scale - 0.5 if point else position * scale


def tile_height(row_bytes: int) -> int:
    """Return how high tiles are in a picture whose rows take so many bytes."""
    height = TILE
    while height > LEAST_TILE and height * row_bytes > TILE_ROW_BYTES:
        height //= 2
    return height


def _coded(tiles: Iterator[NDArray[Any]], pool: ThreadPoolExecutor, most: int) -> Iterator[bytes]:
    """Deflate tiles in threads, at most so many ahead."""
    pending: deque[Future[bytes]] = deque()
    for tile in tiles:
        pending.append(pool.submit(_deflated, tile))
        if len(pending) == most:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _deflated(tile: NDArray[Any]) -> bytes:
    data = tile.astype(tile.dtype.newbyteorder("<"), copy=False).data
    return bytes(zlib.compress(data, 3) if _fast is None else _fast.compress(data, 1))


def _tiles(rows: Iterator[NDArray[Any]], width: int, height: int) -> Iterator[NDArray[Any]]:
    """Cut rows into tiles of this height, row by row of tiles, and fill up those at the edges with zeros."""
    waiting, filled = np.empty((0, 0, 0), np.uint8), 0

    def cut(band: NDArray[Any]) -> Iterator[NDArray[Any]]:
        for left in range(0, width, TILE):
            part = band[:, left : left + TILE]
            tile = np.zeros((height, TILE, part.shape[2]), part.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile

    for part in rows:
        if not waiting.size:
            waiting = np.empty((height, *part.shape[1:]), part.dtype)
        while len(part):
            taken = part[: height - filled]
            waiting[filled : filled + len(taken)] = taken
            filled, part = filled + len(taken), part[len(taken) :]
            if filled == height:
                yield from cut(waiting)
                filled = 0
    if filled:
        yield from cut(waiting[:filled])
