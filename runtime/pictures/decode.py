"""Pixels, alpha and metadata out of a picture that Pillow has opened, at the file's own depth."""

import dataclasses
import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.planes import is_planar16, read_planes
from flashrib.runtime.pictures.profiles import lab_to_srgb

PHOTOMETRIC, EXTRA_SAMPLES = 262, 338
CMYK_DEPTH = "its 16 bits per channel (CMYK becomes sRGB of 8 bits)"
OTHER_BYTE_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Channels of a picture as they are stored, before the orientation is applied.

    Attributes:
        samples: (H, W, C) uint8 or uint16; C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        converted: True where the colours were converted to sRGB, so that the file's ICC profile no longer describes them.
        lost: what of them could not be kept, for the user to read.
    """

    samples: NDArray[Any]
    converted: bool = False
    lost: tuple[str, ...] = ()


def decode(image: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile]) -> Decoded:
    """Decode `image`, which must not have been loaded yet.

    Args:
        image: as opened by Pillow, at the wanted page.
        reopen: opens the same page of the same file once more; 16-bit colour takes two passes.

    Raises:
        PictureError: a kind of pixels that is not supported; the message lacks the file's name.
        Exception: whatever Pillow raises for damaged files.
    """
    if is_planar16(image):
        return _from_planes(image)
    rawmode = _rawmode(image)
    key = image.info.get("transparency")
    family, _, depth = rawmode.partition(";")
    if image.mode.startswith("I;16"):
        samples = _gray16(image, rawmode)
        return Decoded(_add_key_alpha(samples, key))
    if depth.startswith("16") and family in ("RGB", "RGBX", "RGBA", "RGBa", "LA"):
        return Decoded(_add_key_alpha(_colour16(image, reopen, rawmode), key))
    if image.mode in ("1", "L"):
        # A gray PNG of 2 or 4 bits is stretched to 0..255 by Pillow, its transparent value is not.
        stretch = {"L;2": 85, "L;4": 17}.get(rawmode, 1)
        samples = np.asarray(image.convert("L"))[..., None]
        return Decoded(_add_key_alpha(samples, key * stretch if isinstance(key, int) else None))
    if image.mode == "LAB":
        return Decoded(lab_to_srgb(image), converted=True)
    if image.mode == "CMYK":
        lost = (CMYK_DEPTH,) if depth.startswith("16") else ()
        return Decoded(_cmyk_to_srgb(image, image.info.get("icc_profile")), converted=True, lost=lost)
    target = {
        "LA": "LA",
        "La": "LA",
        "RGB": "RGB" if key is None else "RGBA",
        "RGBX": "RGB",
        "YCbCr": "RGB",
        "RGBA": "RGBA",
        "RGBa": "RGBA",
        "P": "RGB" if key is None else "RGBA",
        "PA": "RGBA",
    }.get(image.mode)
    if target is None:
        kind = {"F": "32-bit floating point", "I": "signed or 32-bit integer"}.get(image.mode, image.mode)
        raise PictureError(f"{kind} pixels are not supported; save it as RGB or gray with 8 or 16 bits per channel")
    return Decoded(np.asarray(image.convert(target)))


def oriented(samples: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (H, W, C) upright; `orientation` 1..8 as in Exif 2.32, section 4.6.4, tag 0x0112."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Name of the packing of the file's samples, such as "RGB;16B"; empty where the format does not say."""
    if not image.tile:
        return ""
    args = image.tile[0].args
    if isinstance(args, tuple) and args:
        args = args[0]
    return args if isinstance(args, str) else ""


def _samples_as(image: ImageFile.ImageFile, rawmode: str) -> NDArray[np.uint8]:
    """Decode `image` with another unpacking of its samples than Pillow would choose."""
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]
    return np.asarray(image)


def _gray16(image: ImageFile.ImageFile, rawmode: str) -> NDArray[np.uint16]:
    samples = np.asarray(image).astype(np.uint16)[..., None]
    tags = getattr(image, "tag_v2", {})
    if rawmode == "I;12":
        samples = samples << np.uint16(4) | samples >> np.uint16(8)
    if tags.get(PHOTOMETRIC) == 0:
        # White is zero; Pillow inverts 8-bit gray but not this.
        samples = ~samples
    return samples


def _colour16(
    image: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile], rawmode: str
) -> NDArray[np.uint16]:
    """Decode 16-bit colour, of which Pillow keeps the high bytes only (python-pillow/Pillow#1888).

    Read with the opposite byte order, the same file yields the low bytes. Two passes of Pillow's C decoders are about ten
    times faster than a decoder written in Python, and they need no further package.
    """
    if rawmode == "LA;16B":
        # Four bytes per pixel: gray high, gray low, alpha high, alpha low.
        both = _samples_as(image, "RGBA")
        return both.view(">u2").astype(np.uint16)
    associated = rawmode.startswith("RGBa")
    if associated:
        # Pillow would divide by alpha at 8 bits.
        rawmode = rawmode.replace("RGBa", "RGBA")
    samples = _samples_as(image, rawmode).astype(np.uint16)
    samples <<= 8
    samples |= _samples_as(reopen(), rawmode[:-1] + OTHER_BYTE_ORDER[rawmode[-1]])
    return _not_multiplied(samples) if associated else samples


def _add_key_alpha(samples: NDArray[Any], key: Any) -> NDArray[Any]:
    """Append the alpha that a PNG's transparent value stands for (PNG 3rd edition, section 11.3.1.1)."""
    if key is None or samples.shape[-1] not in (1, 3):
        return samples
    opaque = np.any(samples != np.asarray(key, samples.dtype), axis=-1, keepdims=True)
    alpha = opaque.astype(samples.dtype) * np.iinfo(samples.dtype).max
    return np.concatenate([samples, alpha], axis=-1)


def _from_planes(image: ImageFile.ImageFile) -> Decoded:
    """Decode 16-bit channels that lie in planes of their own."""
    tags: Any = getattr(image, "tag_v2", {})
    colour, extra, icc = tags.get(PHOTOMETRIC), tags.get(EXTRA_SAMPLES, ()), image.info.get("icc_profile")
    samples: NDArray[Any] = read_planes(image)
    if (colour, samples.shape[-1]) not in ((2, 3), (2, 4), (5, 4)):
        raise PictureError(
            "16-bit planes of this kind are not supported; save it as RGB or gray with 8 or 16 bits per channel"
        )
    if colour == 5:
        ink = Image.merge("CMYK", [Image.fromarray((samples[..., i] >> 8).astype(np.uint8)) for i in range(4)])
        return Decoded(_cmyk_to_srgb(ink, icc), converted=True, lost=(CMYK_DEPTH,))
    if samples.shape[-1] == 4 and 0 in extra:  # of unknown meaning, no alpha
        return Decoded(samples[..., :3])
    return Decoded(_not_multiplied(samples) if 1 in extra else samples)


def _not_multiplied(samples: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Divide 16-bit colours by their alpha, the last channel."""
    alpha = np.maximum(samples[..., -1:], 1).astype(np.uint32)
    colour = (samples[..., :-1].astype(np.uint32) * 65535 + alpha // 2) // alpha
    samples[..., :-1] = np.minimum(colour, 65535)
    return samples


def _cmyk_to_srgb(image: Image.Image, icc: bytes | None) -> NDArray[np.uint8]:
    """Convert CMYK to sRGB through the file's profile; without a usable one as 255 - C - K, as Pillow does."""
    if icc and icc[16:20] == b"CMYK":
        try:
            srgb = ImageCms.createProfile("sRGB")
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            converted = ImageCms.profileToProfile(
                image,
                source,
                ImageCms.ImageCmsProfile(srgb),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except ImageCms.PyCMSError:
            converted = None
        if converted is not None:
            return np.asarray(converted)
    return np.asarray(image.convert("RGB"))
