"""What a file says beside its pixels, as far as it holds for the upscaled picture: EXIF, profile, XMP, IPTC, texts, density."""

import re
import struct
from typing import IO, Any

from PIL import Image, ImageFile, MpoImagePlugin

from flashrib.runtime.pictures import profiles
from flashrib.runtime.pictures.avif import cicp_of_avif
from flashrib.runtime.pictures.picture import Extras
from flashrib.runtime.pictures.png_chunks import colour_chunks

ORIENTATION = 0x0112
EXIF_IFD, GPS_IFD, INTEROP_IFD = 0x8769, 0x8825, 0xA005
COLOUR_SPACE = 0xA001
# Tags of the first directory that describe the photograph, not the layout of the file that it came from: description, make,
# model, orientation, resolution, software, date, artist, rating, the XP* texts, copyright, and the two sub-directories.
KEPT_EXIF_TAGS = (
    *(0x010E, 0x010F, 0x0110, ORIENTATION, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x4746, 0x4749, 0x8298),
    *(0x9C9B, 0x9C9C, 0x9C9D, 0x9C9E, 0x9C9F),
    *(EXIF_IFD, GPS_IFD),
)
# Pixel dimensions, which upscaling makes wrong.
DROPPED_EXIF_TAGS = (0xA002, 0xA003)

IPTC_RESOURCE = 0x0404
TIFF_IPTC, TIFF_PHOTOSHOP = 33723, 34377
MOST_DENSITY = 65535  # dots per inch that a JPEG can say
XMP_KEYWORD = "XML:com.adobe.xmp"
GAIN_MAPS = (b"hdr-gain-map", b"HDRGainMap", b"urn:iso:std:iso:ts:21496:-1")


def read_exif(image: Image.Image) -> tuple[int, bytes | None]:
    """Return the orientation (1..8, 1 where there is none) and the EXIF block of a picture that has been turned upright.

    Only tags about the photograph are kept. A damaged block is dropped: it must not keep a sound picture from being read.
    """
    orientation = 1
    try:
        exif = image.getexif()
        if exif.get(ORIENTATION) in range(1, 9):
            orientation = int(exif[ORIENTATION])
        kept = Image.Exif()
        for tag in KEPT_EXIF_TAGS:
            if tag in (EXIF_IFD, GPS_IFD):
                directory = {key: value for key, value in exif.get_ifd(tag).items() if key not in DROPPED_EXIF_TAGS}
                if INTEROP_IFD in directory:
                    # A directory of its own: sizes in it are those of the file that it came from.
                    index = exif.get_ifd(INTEROP_IFD).get(1)
                    del directory[INTEROP_IFD]
                    if index:
                        directory[INTEROP_IFD] = {1: index}
                if directory:
                    kept[tag] = directory
            elif tag in exif:
                kept[tag] = exif[tag]
        if not len(kept):
            return orientation, None
        kept[ORIENTATION] = 1
        return orientation, kept.tobytes()
    except Exception:  # Pillow raises nearly anything for damaged EXIF
        return orientation, None


def read_extras(image: ImageFile.ImageFile, file: IO[bytes], *, decoded: bool = True) -> Extras:
    """Return what else a picture says; what is damaged is left out.

    Args:
        image: as Pillow opened it.
        file: from which it was opened.
        decoded: its pixels are in memory; texts of a PNG that stand behind the pixels are only found then.
    """
    chunks = colour_chunks(file) if image.format == "PNG" else ()
    if image.format == "AVIF" and not image.info.get("icc_profile"):
        chunks = _chunks_of_avif(file)
    xmp = _xmp(image)
    lost = []
    if _has_gain_map(image, xmp):
        lost.append("its gain map (HDR)")
        xmp = None  # it describes the gain map
    elif image.format == "MPO" and (others := _other_pictures(image)):
        lost.append("the second picture in the file" if others == 1 else f"the {others} other pictures in the file")
    return Extras(
        density=_density(image),
        xmp=xmp,
        iptc=_iptc(image),
        comment=_comment(image),
        text=_text(image, decoded),
        colour_chunks=chunks,
        hdr=_hdr(dict(chunks)),
        lost=tuple(lost),
    )


def profile_of(image: ImageFile.ImageFile, extras: Extras, exif: bytes | None, gray: bool) -> bytes | None:
    """Return the ICC profile of the pixels: the file's, or one made from what it says otherwise; None stands for sRGB.

    Where a PNG says it several times, cICP comes before the profile, that before sRGB, and that before gAMA and cHRM (PNG 3rd
    edition, section 4.3). Adobe RGB is told by EXIF alone in some cameras' files (DCF 2.0, option file "R03").
    """
    chunks = dict(extras.colour_chunks)
    try:
        if (code := chunks.get(b"cICP")) and len(code) == 4 and extras.hdr is None:
            known, made = _from_cicp(code, gray)
            if known:
                return made
        if icc := matching_profile(image.info.get("icc_profile"), gray):
            return icc
        if extras.hdr is None and b"sRGB" not in chunks and not image.info.get("icc_profile"):
            if made := _from_gamma(chunks.get(b"gAMA"), chunks.get(b"cHRM"), gray):
                return made
            if not gray and not chunks and _is_adobe_rgb(exif):
                return profiles.adobe_rgb()
    except (ValueError, ZeroDivisionError, ArithmeticError, struct.error):  # primaries that span nothing
        return None
    return None


def matching_profile(icc: bytes | None, gray: bool) -> bytes | None:
    """Return `icc` if its colour space (bytes 16..19 of the header, ICC.1:2022 section 7.2) is that of the pixels."""
    if not icc or icc[16:20] != (b"GRAY" if gray else b"RGB "):
        return None
    return icc


def exif_as_srgb(exif: bytes | None) -> bytes | None:
    """Return an EXIF block that does not call pixels Adobe RGB which have been converted to sRGB."""
    if exif is None or not _is_adobe_rgb(exif):
        return exif
    block = Image.Exif()
    block.load(exif)
    directory = dict(block.get_ifd(EXIF_IFD))
    directory.pop(INTEROP_IFD, None)
    directory[COLOUR_SPACE] = 1
    made = Image.Exif()
    for tag in block:
        made[tag] = directory if tag == EXIF_IFD else block.get_ifd(tag) if tag == GPS_IFD else block[tag]
    return made.tobytes()


def _chunks_of_avif(file: IO[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """What an AVIF says about its colours, as a PNG would; nothing where they are those of sRGB, or unknown."""
    code = cicp_of_avif(file)
    if code is None or code[:2] == bytes((1, 13)) or code[0] not in profiles.PRIMARIES:
        return ()
    return ((b"cICP", code),) if code[1] in profiles.CURVES or code[1] in profiles.HDR_TRANSFERS else ()


def _from_cicp(code: bytes, gray: bool) -> tuple[bool, bytes | None]:
    """(whether it is known, profile or None for sRGB) of code points of H.273."""
    primaries, transfer, matrix, full = code
    if primaries not in profiles.PRIMARIES or transfer not in profiles.CURVES or matrix != 0 or full != 1:
        return False, None
    if (primaries, transfer) == (1, 13):
        return True, None
    curve = profiles.CURVES[transfer]
    name = f"H.273 {primaries}/{transfer}"
    return True, profiles.gray_profile(name, curve) if gray else profiles.rgb_profile(
        name, *profiles.PRIMARIES[primaries], curve
    )


def _from_gamma(gamma: bytes | None, chromaticities: bytes | None, gray: bool) -> bytes | None:
    """The profile of gAMA and cHRM (PNG 3rd edition, 11.3.2.1 and 11.3.2.2); None for those of sRGB."""
    exponent = struct.unpack(">L", gamma)[0] / 100000 if gamma and len(gamma) == 4 else 0.0
    values = struct.unpack(">8L", chromaticities) if chromaticities and len(chromaticities) == 32 else ()
    white, *primaries = [(values[i] / 100000, values[i + 1] / 100000) for i in range(0, len(values), 2)] or [
        profiles.D65,
        *profiles.SRGB_XY,
    ]
    wanted = (*profiles.D65, *(value for pair in profiles.SRGB_XY for value in pair))
    given = (*white, *(value for pair in primaries for value in pair))
    plain = all(abs(a - b) < 0.002 for a, b in zip(wanted, given, strict=True))
    # 0.45455 stands for sRGB's curve where the colours are sRGB's: that is what writers of the sRGB chunk add for old readers.
    curve = profiles.SRGB_CURVE
    if 0.01 <= exponent <= 10 and not (abs(exponent - 0.45455) < 0.001 and (plain or gray)):
        curve = (1 / exponent,)
    elif plain or gray:
        return None
    if gray:
        return profiles.gray_profile("PNG gAMA", curve)
    return profiles.rgb_profile("PNG gAMA and cHRM", primaries, white, curve)


def _hdr(chunks: dict[bytes, bytes]) -> str | None:
    code = chunks.get(b"cICP", b"")
    return profiles.HDR_TRANSFERS.get(code[1]) if len(code) == 4 else None


def _is_adobe_rgb(exif: bytes | None) -> bool:
    if exif is None:
        return False
    block = Image.Exif()
    block.load(exif)
    directory = block.get_ifd(EXIF_IFD)
    index = block.get_ifd(INTEROP_IFD).get(1, "") if INTEROP_IFD in directory else ""
    # 2 stands in no standard, but some cameras write it.
    return directory.get(COLOUR_SPACE) == 2 or (
        directory.get(COLOUR_SPACE) == 0xFFFF and str(index).rstrip("\0 ") == "R03"
    )


def _density(image: ImageFile.ImageFile) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    # Pillow says 1 or 72 where the file says nothing.
    return (across, down) if 2 <= across <= MOST_DENSITY and 2 <= down <= MOST_DENSITY else None


def _xmp(image: ImageFile.ImageFile) -> bytes | None:
    """The XMP packet as it holds after turning and enlarging."""
    xmp = image.info.get("xmp")
    if isinstance(xmp, str):
        xmp = xmp.encode()
    if not isinstance(xmp, bytes) or not xmp.strip(b"\0 \r\n\t"):
        return None
    xmp = re.sub(rb"(tiff:Orientation\s*=\s*[\"'])\s*[0-9]+", rb"\g<1>1", xmp)
    xmp = re.sub(rb"(<tiff:Orientation\s*>)\s*[0-9]+", rb"\g<1>1", xmp)
    size = rb"(?:tiff:Image(?:Width|Length)|exif:Pixel[XY]Dimension)"
    xmp = re.sub(rb"\s" + size + rb"\s*=\s*(?:\"[0-9]*\"|'[0-9]*')", b"", xmp)
    return re.sub(rb"<(" + size + rb")\s*>\s*[0-9]*\s*</\1\s*>", b"", xmp)


def _has_gain_map(image: ImageFile.ImageFile, xmp: bytes | None) -> bool:
    return any(name in part for part in (xmp or b"", image.info.get("mp") or b"") for name in GAIN_MAPS) or any(
        b"urn:iso:std:iso:ts:21496:-1" in content for _, content in getattr(image, "applist", ())
    )


def _other_pictures(image: ImageFile.ImageFile) -> int:
    """Pictures beside the first in an MPO that are not previews of it."""
    if not isinstance(image, MpoImagePlugin.MpoImageFile):
        return 0
    try:
        kinds = [entry["Attribute"]["MPType"] for entry in (image.mpinfo or {})[0xB002]]
    except (KeyError, TypeError):
        return int(image.n_frames) - 1
    return sum("Thumbnail" not in str(kind) for kind in kinds[1:])


def _iptc(image: ImageFile.ImageFile) -> bytes | None:
    resources = image.info.get("photoshop")
    tags: Any = getattr(image, "tag_v2", {})
    content = resources.get(IPTC_RESOURCE) if isinstance(resources, dict) else None
    if content is None and TIFF_IPTC in tags:
        content = tags[TIFF_IPTC]
        if isinstance(content, tuple) and all(isinstance(value, int) for value in content):
            content = struct.pack(f"<{len(content)}L", *content)  # some write it as 32-bit numbers
    return content if isinstance(content, bytes) and content else None


def _comment(image: ImageFile.ImageFile) -> bytes | None:
    comment = image.info.get("comment")
    return comment if isinstance(comment, bytes) and comment else None


def _text(image: ImageFile.ImageFile, decoded: bool) -> tuple[tuple[str, str], ...]:
    """Texts of a PNG, but for those that hold EXIF or XMP of the file before."""
    if image.format != "PNG":
        return ()
    texts = getattr(image, "text", {}) if decoded else image.info
    return tuple(
        (str(key), str(value))
        for key, value in texts.items()
        if isinstance(value, str) and key not in (XMP_KEYWORD, "xmp") and not str(key).startswith("Raw profile type ")
    )
