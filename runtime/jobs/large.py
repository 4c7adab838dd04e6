"""Upscales a picture that is never in memory as a whole."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.encode import Metadata
from flashrib.runtime.pictures.files import our_pillow
from flashrib.runtime.pictures.fit import check_hdr, fitted_metadata, stripped_metadata
from flashrib.runtime.pictures.formats import format_of, opened_format
from flashrib.runtime.pictures.large.sink import file_sink
from flashrib.runtime.pictures.large.source import DECODER_ROWS, VipsSource
from flashrib.runtime.pictures.large.tiff import has_directories, scaled_geo_tags
from flashrib.runtime.pictures.metadata import profile_of, read_exif, read_extras
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.memory import flatter
from flashrib.runtime.tiling.upscale import DEFAULT_HALO, tile_sides, upscale_stream

LARGE_BYTES = 2**30
"""Bytes of a result beyond which it is written in bands, if that is possible."""
_WRITES = ("PNG", "JPEG", "TIFF")


def result_bytes(source: Path, scale: int, samples: int | None = None) -> int:
    """Return how many bytes the pixels of the result take, at least; 0 where the file cannot be read, which others say better.

    Args:
        source: the picture.
        scale: magnification.
        samples: bytes per pixel; None: as the file has.
    """
    try:
        with our_pillow(), Image.open(source) as image:
            width, height = image.size
            samples = samples or len(image.getbands()) * (2 if "16" in image.mode else 1)
    except Exception:  # Pillow raises nearly anything for damaged files
        return 0
    return width * height * scale * scale * samples


def not_in_bands_because(source: Path, target: Path) -> str | None:
    """Return why a picture cannot be read and written in bands of rows, or None where it can."""
    for package in ("pyvips", "tifffile"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package!r} is not installed: pip install 'flashrib[large]'"
    kind = format_of(target)
    if kind is None or kind.name not in _WRITES:
        return f"{target.suffix} is not written in bands: PNG, JPEG and TIFF are"
    try:
        with our_pillow(), Image.open(source) as image:
            opened, info = image.format, image.info
            if opened not in _WRITES:
                return f"{opened} is not read in bands: PNG, JPEG and TIFF are"
            if image.mode not in ("RGB", "L", "I;16", "I;16B") or "transparency" in info:
                return f"pictures of the kind {image.mode} are not read in bands: RGB and gray without alpha are"
            if info.get("interlace") or info.get("progressive"):
                return "an interlaced or progressive file is decoded as a whole by every decoder"
            if getattr(image, "n_frames", 1) > 1:
                return "it has several pages"
            if _exif_is_at_hand(image) and image.getexif().get(0x0112, 1) != 1:
                return "it is turned by its EXIF orientation"
    except Exception as error:  # Pillow raises nearly anything for damaged files
        return str(error)
    return None


def _exif_is_at_hand(image: Image.Image) -> bool:
    """Whether it is known without decoding the pixels: Pillow looks behind those of a PNG that has none before."""
    return image.format != "PNG" or "exif" in image.info


def upscale_large(
    session: Session,
    source: Path,
    target: Path,
    *,
    tile: int | tuple[int, int] | None = None,
    halo: int | None = None,
    quality: int | None = None,
    strip: bool = False,
    png_level: int | None = None,
    pyramid: bool = False,
    band_bytes: int = LARGE_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int, tuple[str, ...]]:
    """Upscale a picture in bands of rows; memory is set by the width of the picture and the rows of a tile, not by its height.

    Args:
        session: the loaded model.
        source: the picture; `not_in_bands_because` says nothing against it.
        target: the file to write.
        tile: see `upscale_array`.
        halo: see `upscale_array`.
        quality: 1 to 100 of JPEG; None: 95.
        strip: write nothing beside the pixels but what their colours need.
        png_level: 0 to 9 of PNG; None: 1.
        pyramid: a TIFF gets smaller levels, see `file_sink`.
        band_bytes: that the decoder and the bands in work may take: tiles become lower and wider for it.
        progress: see `upscale_array`.

    Returns:
        Height and width of the source in pixels, and what of it could not be kept.

    Raises:
        MissingPackageError: pyvips, or for TIFF tifffile, is not installed.
        PictureError: the source is damaged, or the result cannot be written.
        UsageError, OutOfMemoryError, SessionError: as `upscale_array`.
    """
    with our_pillow(), open(source, "rb") as file, Image.open(file) as image:
        check = opened_format(image).check
        if check is not None and (damage := check(image, file)):
            raise PictureError(f"{source}: {damage}")
    pixels = VipsSource(source)
    scale, channels = session.info.scale, 1 if pixels.gray else 3
    height, width = pixels.height * scale, pixels.width * scale
    kind = format_of(target)
    assert kind is not None
    if kind.longest_side and max(height, width) > kind.longest_side:
        raise PictureError(f"{target}: {width} x {height} is too large for {kind.name}: write PNG or TIFF")
    with our_pillow(), open(source, "rb") as file, Image.open(file) as image:
        exif = read_exif(image)[1] if _exif_is_at_hand(image) else None
        extras = read_extras(image, file, decoded=False)
        metadata = Metadata(profile_of(image, extras, exif, gray=pixels.gray), exif, extras)
    if strip:
        metadata = stripped_metadata(metadata)
    try:
        check_hdr(metadata.extras, metadata.icc, kind)
    except PictureError as error:
        raise PictureError(f"{target}: cannot be written: {error}") from error
    metadata, lost = fitted_metadata(metadata, kind)
    if kind.name == "TIFF" and has_directories(metadata.exif):
        lost = (*lost, "EXIF")
    tags = scaled_geo_tags(source, scale) if kind.name == "TIFF" and image.format == "TIFF" else []
    halo = DEFAULT_HALO if halo is None else halo
    if not isinstance(tile, tuple) and not (session.info.whole_picture or session.info.fixed_size):
        sides = tile_sides(session, tile, halo, pixels.height, pixels.width)
        source_bytes = pixels.width * channels * pixels.dtype.itemsize
        row_bytes = source_bytes * (scale * scale + 1)
        most_bytes = max(band_bytes // 2, band_bytes - DECODER_ROWS * source_bytes)
        tile = flatter(sides, halo, session.info.alignment, pixels.width, row_bytes, most_bytes)
    with file_sink(
        Path(os.fspath(target)), height, width, channels, pixels.dtype, metadata, quality, tags, png_level, pyramid
    ) as sink:
        upscale_stream(session, pixels, sink, tile=tile, halo=halo, progress=progress)
    return pixels.height, pixels.width, lost
