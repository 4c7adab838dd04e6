"""What of a picture a format can hold: colours are converted to sRGB where their profile cannot stay, the rest is named."""

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.encode import Metadata
from flashrib.runtime.pictures.formats import Format
from flashrib.runtime.pictures.metadata import exif_as_srgb, matching_profile
from flashrib.runtime.pictures.picture import Extras, Picture
from flashrib.runtime.pictures.profiles import to_srgb

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, INCHES = 0x011A, 0x011B, 0x0128, 2
COMMENT = "Comment"
NAMES = {"exif": "EXIF", "xmp": "XMP", "iptc": "IPTC", "comment": "its comment", "density": "its density"}


def fitted(picture: Picture, row: Format) -> tuple[NDArray[Any], Metadata, tuple[str, ...]]:
    """Return what is written of a picture.

    Args:
        picture: to be written.
        row: the format; alpha has been checked before.

    Returns:
        Samples (H, W, 1 to 4) as the format stores them, what is written beside them, and what is not kept, for the user to read.

    Raises:
        PictureError: colours that neither the format nor sRGB can hold; the message lacks the file's name.
    """
    extras, exif, icc = picture.extras, picture.exif, picture.icc
    lost: list[str] = []
    check_hdr(extras, icc, row)
    samples = picture.samples(alpha=row.alpha)
    icc = matching_profile(icc, gray=samples.shape[-1] <= 2)
    as_colour = (samples.shape[-1] == 1 and not row.gray) or (
        samples.shape[-1] == 2 and not row.gray_alpha(samples.dtype)
    )
    if icc is not None and ("icc" not in row.keeps or as_colour):
        samples, usable = _in_srgb(samples, icc)
        lost += [] if usable else ["its ICC profile, which is damaged"]
        icc, exif = None, exif_as_srgb(exif)
        extras = dataclasses.replace(extras, colour_chunks=())
    if as_colour:
        samples = samples[..., [0, 0, 0, *range(1, samples.shape[-1])]]
    extras = dataclasses.replace(extras, lost=(*extras.lost, *lost))
    return samples, *fitted_metadata(Metadata(icc, exif, extras), row)


def check_hdr(extras: Extras, icc: bytes | None, row: Format) -> None:
    """Refuse colours that neither a format nor sRGB can hold, by a PictureError that lacks the file's name."""
    if extras.hdr and "colour_chunks" not in row.keeps and icc is None:
        raise PictureError(f"has {extras.hdr} colours (HDR), which {row.name} cannot keep; write a PNG")


def fitted_metadata(metadata: Metadata, row: Format) -> tuple[Metadata, tuple[str, ...]]:
    """Return what of the metadata a format can hold, and what is not kept, for the user to read; the profile stays as it is."""
    extras, exif, icc = metadata.extras, metadata.exif, metadata.icc
    lost = list(extras.lost)
    extras = _translated(extras, row)
    if extras.density and "density" not in row.keeps and "exif" in row.keeps:
        exif, extras = _with_density(exif, extras.density), dataclasses.replace(extras, density=None)
    if exif and "exif" not in row.keeps:
        lost.append(NAMES["exif"])
        exif = None
    for field in ("xmp", "iptc", "comment", "density"):
        if getattr(extras, field) and field not in row.keeps:
            lost.append(NAMES[field])
    if extras.text and "text" not in row.keeps:
        lost.append("its texts (" + ", ".join(key for key, _ in extras.text) + ")")
    metadata, too_long = _within(Metadata(icc, exif, extras), row.longest_block)
    return metadata, (*lost, *too_long)


def stripped(picture: Picture) -> Picture:
    """Return the picture with nothing but what its colours need."""
    return dataclasses.replace(picture, exif=None, extras=_colours(picture.extras))


def stripped_metadata(metadata: Metadata) -> Metadata:
    """Return nothing but what colours need."""
    return Metadata(metadata.icc, None, _colours(metadata.extras))


def _colours(extras: Extras) -> Extras:
    return Extras(colour_chunks=extras.colour_chunks, hdr=extras.hdr)


def _in_srgb(samples: NDArray[Any], icc: bytes) -> tuple[NDArray[Any], bool]:
    """Samples in sRGB, alpha as it was, and whether the profile could be used."""
    colours = 1 if samples.shape[-1] <= 2 else 3
    converted = to_srgb(samples[..., :colours], icc)
    if converted is None:
        return samples, False
    return np.concatenate([converted, samples[..., colours:]], axis=-1), True


def _translated(extras: Extras, row: Format) -> Extras:
    """A JPEG's comment is a text of PNG, and the other way round."""
    if extras.comment and "comment" not in row.keeps and "text" in row.keeps:
        try:
            comment = extras.comment.decode()
        except UnicodeDecodeError:
            comment = extras.comment.decode("latin-1")
        return dataclasses.replace(extras, comment=None, text=(*extras.text, (COMMENT, comment)))
    texts = dict(extras.text)
    if COMMENT in texts and "text" not in row.keeps and "comment" in row.keeps and not extras.comment:
        others = tuple(pair for pair in extras.text if pair[0] != COMMENT)
        return dataclasses.replace(extras, comment=texts[COMMENT].encode(), text=others)
    return extras


def _with_density(exif: bytes | None, density: tuple[float, float]) -> bytes:
    block = Image.Exif()
    if exif:
        block.load(exif)
    if X_RESOLUTION not in block:
        block[X_RESOLUTION], block[Y_RESOLUTION], block[RESOLUTION_UNIT] = *density, INCHES
    return block.tobytes()


def _within(metadata: Metadata, longest: int | None) -> tuple[Metadata, list[str]]:
    """Leave out blocks that are longer than the format allows."""
    if longest is None:
        return metadata, []
    extras = metadata.extras
    blocks = {"exif": metadata.exif, "xmp": extras.xmp, "iptc": extras.iptc, "comment": extras.comment}
    long = [name for name, block in blocks.items() if block and len(block) > longest]
    if "exif" in long:
        metadata = dataclasses.replace(metadata, exif=None)
    dropped: Any = dict.fromkeys(name for name in long if name != "exif")
    metadata = dataclasses.replace(metadata, extras=dataclasses.replace(extras, **dropped))
    return metadata, [f"{NAMES[name]}, which is longer than {longest} bytes" for name in long]
