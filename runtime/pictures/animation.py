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
from PIL import Image, ImageFile, TiffImagePlugin, features

from flashrib.runtime.artifacts.files import opened_whole
from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.encode import encode_tiff
from flashrib.runtime.pictures.files import our_pillow, read_page
from flashrib.runtime.pictures.fit import fitted
from flashrib.runtime.pictures.formats import FORMATS, opened_format
from flashrib.runtime.pictures.limits import max_pixels_by_memory
from flashrib.runtime.pictures.picture import Picture

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
        icc: ICC profile of all frames, or None.
    """

    pages: bool
    durations: tuple[float, ...]
    loop: int | None
    icc: bytes | None


def read_animation(path: Path) -> Animation | None:
    """Return what a file of several pictures says about itself, or None where it holds one, or is not read at all.

    Raises:
        PictureError: a frame is damaged.
    """
    several = False
    try:
        with our_pillow(), open(path, "rb") as file, Image.open(file) as image:
            count = getattr(image, "n_frames", 1)
            several = count > 1
            if not several or image.format not in {"TIFF", "GIF", *_ANIMATED.values()}:
                return None
            # Before anything is decoded: sizes may be forged.
            most, pixels = max_pixels_by_memory(), image.width * image.height
            if pixels > most:
                raise PictureError(f"{path}: {image.width} x {image.height} pixels are more than the limit of {most}")
            check = opened_format(image).check
            if check is not None and (damage := check(image, file)):
                raise PictureError(f"{path}: {damage}")
            if image.format == "TIFF":
                full = _full_pages(image)
                return Animation(True, (0.0,) * len(full), None, None) if len(full) > 1 else None
            first = 1 if getattr(image, "default_image", False) else 0
            icc, loop = image.info.get("icc_profile"), image.info.get("loop")
            durations = []
            for number in range(first, count):
                image.seek(number)
                image.load()
                durations.append(float(image.info.get("duration", 0)))
    except PictureError:
        raise
    except Exception as error:  # Pillow raises nearly anything for damaged files
        if not several:
            return None  # the reader of single pictures says it better
        raise PictureError(f"{path}: is damaged or truncated: {' '.join(str(error).split())}") from error
    return Animation(False, tuple(durations), loop, icc)


def read_frames(path: Path, animation: Animation) -> Iterator[Picture]:
    """Yield the frames or the pages, from the first to the last.

    Raises:
        PictureError: one is damaged.
    """
    if animation.pages:
        with Image.open(path) as image:
            full = _full_pages(image)
        for page in full:
            yield read_page(path, page)
        return
    with Image.open(path) as image:
        first = image.n_frames - len(animation.durations)  # type: ignore[attr-defined]  # of the formats with several frames
        for number in range(len(animation.durations)):
            image.seek(first + number)
            samples = np.asarray(image.convert("RGBA"))
            alpha = np.ascontiguousarray(samples[..., 3])
            see_through = bool((alpha != 255).any())
            yield Picture(
                np.ascontiguousarray(samples[..., :3]), alpha if see_through else None, False, animation.icc, None
            )


def not_written_because(target: Path, animation: Animation) -> str | None:
    """Return why a file of this name cannot hold it, or None where it can."""
    suffix = target.suffix.lower()
    if animation.pages:
        return None if suffix in _TIFF else f"{suffix} does not hold several pages: write .tif"
    known = ", ".join(_ANIMATED)
    return None if suffix in _ANIMATED else f"{suffix} does not hold an animation: use one of {known}"


def write_frames(path: Path, frames: Iterator[Picture], animation: Animation, quality: int | None = None) -> None:
    """Write frames or pages into a file, whole or not at all.

    Args:
        path: the file; `not_written_because` says nothing against it.
        frames: as many as `animation` has durations.
        animation: times, loop and profile.
        quality: 1 to 100 of WebP (lossless where None) and AVIF (90).

    Raises:
        PictureError: it cannot be written.
    """
    try:
        with opened_whole(path) as file:
            if animation.pages:
                _write_pages(file, frames)
            else:
                _write_animation(file, _ANIMATED[path.suffix.lower()], frames, animation, quality)
    except OSError as error:
        raise PictureError(f"{path}: cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        raise PictureError(f"{path}: cannot be written: {error}") from error


def _write_animation(
    file: IO[bytes], kind: str, frames: Iterator[Picture], animation: Animation, quality: int | None
) -> None:
    images: Iterator[Image.Image] | list[Image.Image] = (_image(frame) for frame in frames)
    first = next(iter(images))
    if kind == "PNG":
        images = list(images)  # its encoder goes through them twice
    durations = [round(duration) for duration in animation.durations]
    options: dict[str, Any] = {"duration": durations, "icc_profile": animation.icc or b""}
    if animation.loop is not None:
        options["loop"] = animation.loop
    if kind == "WEBP":
        options |= {"lossless": quality is None, "quality": quality or 20, "minimize_size": False}
    elif kind == "AVIF":
        options |= {"quality": quality or 90, "subsampling": "4:4:4"}
    else:
        options |= {"disposal": 0, "blend": 0, "default_image": False}  # each frame replaces the one before
    content = io.BytesIO()
    first.save(content, kind, save_all=True, append_images=images, **options)
    file.write(content.getbuffer())


def _write_pages(file: IO[bytes], frames: Iterator[Picture]) -> None:
    content = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(content, new=True) as writer:
        for page in frames:
            samples, metadata, _ = fitted(page, _TIFF_ROW)
            single = io.BytesIO()
            encode_tiff(single, samples, metadata)
            writer.write(single.getvalue())
            writer.newFrame()
        file.write(content.getvalue())


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
