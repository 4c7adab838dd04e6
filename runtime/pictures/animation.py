"""Animations (GIF, WebP, APNG, AVIF) and TIFFs of several pages: one picture after the other, with their times.

Pillow composes the frames: each is the whole picture that is seen at its time, whatever the file stores of it.
"""

import dataclasses
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin, features

from flashrib.runtime.artifacts.files import opened_whole
from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.encode import Metadata, encode_tiff, pillow_blocks, png_chunks
from flashrib.runtime.pictures.files import our_pillow, read_page
from flashrib.runtime.pictures.fit import check_hdr, fitted, fitted_metadata, stripped, stripped_metadata
from flashrib.runtime.pictures.formats import FORMATS, opened_format
from flashrib.runtime.pictures.limits import max_pixels_by_memory, too_large
from flashrib.runtime.pictures.metadata import exif_as_srgb, profile_of, read_exif, read_extras
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.pictures.profiles import to_srgb

# GIF is read and not written: 256 colours are no place for what a network makes.
_ANIMATED = {".webp": "WEBP", ".png": "PNG"} | ({".avif": "AVIF"} if features.check("avif") else {})
_TIFF = (".tif", ".tiff")
_TIFF_ROW = next(row for row in FORMATS if row.name == "TIFF")


@dataclasses.dataclass(frozen=True)
class Animation:
    """What a file of several pictures says about itself.

    Attributes:
        pages: True for a TIFF: pages, which have no times and may differ in size.
        durations: of each frame in milliseconds; of pages 0.
        loop: how often it is played; 0: for ever. None: once, or pages.
        metadata: what belongs to all frames; of pages nothing, each has its own.
        gray_icc: profile of frames that are gray, which are converted to sRGB; None: `metadata` has the profile, if there is one.
        max_pixels: of a page.
    """

    pages: bool
    durations: tuple[float, ...]
    loop: int | None
    metadata: Metadata = dataclasses.field(default_factory=Metadata)
    gray_icc: bytes | None = None
    max_pixels: int | None = None


def read_animation(path: Path, *, max_pixels: int | None = None) -> Animation | None:
    """Return what a file of several pictures says about itself, or None where it holds one, or is not read at all.

    Args:
        path: the file.
        max_pixels: refuse larger frames and pages; None: what fits into free memory.

    Raises:
        PictureError: a frame is damaged or too large, or frames are of different sizes.
    """
    several = False
    try:
        with our_pillow(), open(path, "rb") as file, Image.open(file) as image:
            count = getattr(image, "n_frames", 1)
            several = count > 1
            if not several or image.format not in {"TIFF", "GIF", *_ANIMATED.values()}:
                return None
            # Before anything is decoded: sizes may be forged.
            most = max_pixels_by_memory() if max_pixels is None else max_pixels
            if reason := too_large(image.width, image.height, most):
                raise PictureError(f"{path}: {reason}")
            check = opened_format(image).check
            if check is not None and (damage := check(image, file)):
                raise PictureError(f"{path}: {damage}")
            if image.format == "TIFF":
                full = _full_pages(image)
                return Animation(True, (0.0,) * len(full), None, max_pixels=max_pixels) if len(full) > 1 else None
            first = 1 if getattr(image, "default_image", False) else 0
            size, loop = image.size, image.info.get("loop")
            metadata, gray_icc = _metadata(image, file)
            durations = []
            for number in range(first, count):
                image.seek(number)
                # A frame of a GIF may lie anywhere; Pillow would make the others as large.
                if image.size != size:
                    raise PictureError(
                        f"{path}: is damaged: frame {number + 1} lies outside of its {size[0]} x {size[1]} pixels"
                    )
                image.load()
                durations.append(float(image.info.get("duration", 0)))
    except PictureError:
        raise
    except Exception as error:  # Pillow raises nearly anything for damaged files
        if not several:
            return None  # the reader of single pictures says it better
        raise PictureError(f"{path}: is damaged or truncated: {' '.join(str(error).split())}") from error
    return Animation(False, tuple(durations), loop, metadata, gray_icc)


def _metadata(image: ImageFile.ImageFile, file: IO[bytes]) -> tuple[Metadata, bytes | None]:
    """What belongs to all frames, and the profile of gray ones."""
    gray = image.mode in ("1", "L", "LA")
    exif = read_exif(image)[1]
    extras = read_extras(image, file, decoded=False)
    icc = profile_of(image, extras, exif, gray)
    if not gray or icc is None:
        return Metadata(icc, exif, extras), None
    return Metadata(None, exif_as_srgb(exif), dataclasses.replace(extras, colour_chunks=())), icc


def read_frames(path: Path, animation: Animation) -> Iterator[Picture]:
    """Yield the frames or the pages, from the first to the last.

    Raises:
        PictureError: one is damaged.
    """
    if animation.pages:
        with Image.open(path) as image:
            full = _full_pages(image)
        for page in full:
            yield read_page(path, page, max_pixels=animation.max_pixels)
        return
    with Image.open(path) as image:
        first = image.n_frames - len(animation.durations)  # type: ignore[attr-defined]  # of the formats with several frames
        for number in range(len(animation.durations)):
            image.seek(first + number)
            samples = np.asarray(image.convert("RGBA"))
            alpha = np.ascontiguousarray(samples[..., 3])
            see_through = bool((alpha != 255).any())
            colour = samples[..., :3]
            if animation.gray_icc and (converted := to_srgb(samples[..., :1], animation.gray_icc)) is not None:
                colour = converted.repeat(3, axis=-1)
            yield Picture(np.ascontiguousarray(colour), alpha if see_through else None, icc=animation.metadata.icc)


def not_written_because(target: Path, animation: Animation) -> str | None:
    """Return why a file of this name cannot hold it, or None where it can."""
    suffix = target.suffix.lower()
    if animation.pages:
        return None if suffix in _TIFF else f"{suffix} does not hold several pages: write .tif"
    known = ", ".join(_ANIMATED)
    return None if suffix in _ANIMATED else f"{suffix} does not hold an animation: use one of {known}"


def write_frames(
    path: Path, frames: Iterator[Picture], animation: Animation, quality: int | None = None, *, strip: bool = False
) -> tuple[str, ...]:
    """Write frames or pages into a file, whole or not at all.

    Args:
        path: the file; `not_written_because` says nothing against it.
        frames: as many as `animation` has durations.
        animation: times, loop and metadata.
        quality: 1 to 100 of WebP (lossless where None) and AVIF (90).
        strip: write nothing beside the pixels but what their colours need.

    Returns:
        What could not be kept, for the user to read.

    Raises:
        PictureError: it cannot be written.
    """
    try:
        with opened_whole(path) as file:
            if animation.pages:
                return _write_pages(file, frames, strip)
            metadata = stripped_metadata(animation.metadata) if strip else animation.metadata
            row = next(row for row in FORMATS if path.suffix.lower() in row.suffixes)
            check_hdr(metadata.extras, metadata.icc, row)
            kept, lost = fitted_metadata(metadata, row)
            _write_animation(file, _ANIMATED[path.suffix.lower()], frames, animation, kept, quality)
            return lost
    except OSError as error:
        raise PictureError(f"{path}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise PictureError(f"{path}: cannot be written: {error}") from error


def _write_animation(
    file: IO[bytes],
    kind: str,
    frames: Iterator[Picture],
    animation: Animation,
    metadata: Metadata,
    quality: int | None,
) -> None:
    images: Iterator[Image.Image] | list[Image.Image] = (_image(frame) for frame in frames)
    first = next(iter(images))
    if kind == "PNG":
        images = list(images)  # its encoder goes through them twice
    durations = [round(duration) for duration in animation.durations]
    options: dict[str, Any] = {"duration": durations, **pillow_blocks(metadata)}
    if animation.loop is not None:
        options["loop"] = animation.loop
    if kind == "WEBP":
        options |= {"lossless": quality is None, "quality": quality or 20, "minimize_size": False}
    elif kind == "AVIF":
        options |= {"quality": quality or 90, "subsampling": "4:4:4"}
    else:
        options |= {"disposal": 0, "blend": 0, "default_image": False}  # each frame replaces the one before
        options["pnginfo"] = PngImagePlugin.PngInfo()
        # Pillow has its own ways for the others.
        for name, chunk in png_chunks(Metadata(None, None, dataclasses.replace(metadata.extras, density=None))):
            options["pnginfo"].add(name, chunk)
        if metadata.extras.density:
            options["dpi"] = metadata.extras.density
    content = io.BytesIO()
    first.save(content, kind, save_all=True, append_images=images, **options)
    file.write(content.getbuffer())


def _write_pages(file: IO[bytes], frames: Iterator[Picture], strip: bool) -> tuple[str, ...]:
    content = io.BytesIO()
    lost: list[str] = []
    with TiffImagePlugin.AppendingTiffWriter(content, new=True) as writer:
        for page in frames:
            samples, metadata, of_page = fitted(stripped(page) if strip else page, _TIFF_ROW)
            lost += [name for name in of_page if name not in lost]
            single = io.BytesIO()
            encode_tiff(single, samples, metadata)
            writer.write(single.getvalue())
            writer.newFrame()
        file.write(content.getvalue())
    return tuple(lost)


def _image(picture: Picture) -> Image.Image:
    samples: NDArray[np.uint8] = picture.pixels
    if picture.alpha is not None:
        samples = np.concatenate([samples, picture.alpha[..., None]], axis=-1)
    return Image.fromarray(np.ascontiguousarray(samples))


def _full_pages(image: ImageFile.ImageFile) -> list[int]:
    """Return the pages of a TIFF that are neither thumbnails nor masks (NewSubfileType, bits 0 and 2)."""
    full: list[int] = []
    for page in itertools.count():
        try:
            image.seek(page)
        except EOFError:
            return full
        if not getattr(image, "tag_v2", {}).get(254, 0) & 0b101:
            full.append(page)
    return full
