"""Colour: ICC profiles made from what a file says otherwise, and pixels converted to sRGB where no profile can stay.

Sources: ICC.1:2022 (profiles of version 4), ITU-T H.273 (code points of cICP), PNG 3rd edition, sections 4.3 and 11.3.2.
"""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from flashrib.runtime.pictures.curves import Curve, read_tags, tags_to_linear

Array = NDArray[np.float64]

D65 = (0.3127, 0.329)
D50_XYZ = np.array([0.9642, 1.0, 0.8249])
SRGB_XY = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3_XY = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
ADOBE_XY = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
BT2020_XY = ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046))

SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
BT709_CURVE: Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)

# H.273, tables 2 and 3: primaries with their white, and transfer curves. PQ and HLG are no display-referred curves of 0..1.
PRIMARIES = {
    1: (SRGB_XY, D65),
    4: (((0.67, 0.33), (0.21, 0.71), (0.14, 0.08)), (0.31, 0.316)),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65),
    6: (((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)), D65),
    7: (((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)), D65),
    9: (BT2020_XY, D65),
    11: (P3_XY, (0.314, 0.351)),
    12: (P3_XY, D65),
}
CURVES: dict[int, Curve] = {
    1: BT709_CURVE,
    4: (2.2,),
    5: (2.8,),
    6: BT709_CURVE,
    8: (1.0,),
    13: SRGB_CURVE,
    14: BT709_CURVE,
    15: BT709_CURVE,
}
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def rgb_profile(name: str, primaries: Any, white: tuple[float, float], curve: Curve) -> bytes:
    """Return an ICC profile of RGB.

    Args:
        name: shown by programs.
        primaries: (x, y) of red, green and blue.
        white: (x, y).
        curve: exponent alone, or (g, a, b, c, d) of (a x + b)^g from d on and c x below (ICC.1:2022, 10.18).
    """
    matrix = _adapted(white) @ _to_xyz(primaries, white)
    columns = {tag: _xyz(matrix[:, i]) for i, tag in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    chad = b"sf32" + bytes(4) + b"".join(_fixed(value) for value in _adapted(white).ravel())
    return _profile(b"RGB ", name, columns | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _para(curve)) | {b"chad": chad})


def gray_profile(name: str, curve: Curve) -> bytes:
    """Return an ICC profile of gray; see `rgb_profile`."""
    return _profile(b"GRAY", name, {b"kTRC": _para(curve)})


def adobe_rgb() -> bytes:
    """Return a profile of Adobe RGB (1998)."""
    return rgb_profile("Adobe RGB (1998) compatible", ADOBE_XY, D65, (563 / 256,))


def to_srgb(colour: NDArray[Any], icc: bytes) -> NDArray[Any] | None:
    """Convert the pixels of a profile to sRGB, relative colorimetric with black point compensation.

    RGB of 8 bits goes through LittleCMS. Pillow gives it no 16 bits, and its gray of 8 bits is up to 10 levels off where it is
    dark: curves of gray, and matrices with curves at 16 bits, are computed here. Other profiles are converted at 8 bits.

    Args:
        colour: (H, W, 3), or (H, W, 1) of a gray profile, uint8 or uint16.
        icc: the profile, of RGB or gray as the pixels are.

    Returns:
        (H, W, 3), or (H, W, 1), of the same type; None where the profile cannot be used.
    """
    gray = colour.shape[-1] == 1
    if (gray or colour.dtype == np.uint16) and (linear := tags_to_linear(read_tags(icc), gray)) is not None:
        return _computed(colour, *linear)
    if colour.dtype == np.uint16:
        rough = to_srgb(((colour.astype(np.uint32) + 128) // 257).astype(np.uint8), icc)
        return None if rough is None else rough.astype(np.uint16) * np.uint16(257)
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(icc)),
            ImageCms.createProfile("sRGB"),
            "L" if gray else "RGB",
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        image = Image.fromarray(np.ascontiguousarray(colour[..., 0] if gray else colour))
        converted = np.asarray(ImageCms.applyTransform(image, transform))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return converted[..., 1:2] if gray else converted


def lab_to_srgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert CIE Lab with the white D50 (TIFF 6.0, section 23) to sRGB."""
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"),
        ImageCms.createProfile("sRGB"),
        "LAB",
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )
    return np.asarray(ImageCms.applyTransform(image, transform))


def _computed(colour: NDArray[Any], curves: list[Array], matrix: Array | None) -> NDArray[Any]:
    """Look up each channel's curve (65536 values), multiply to XYZ of D50, go back into sRGB; in blocks of rows."""
    result = np.empty_like(colour)
    most = np.iinfo(colour.dtype).max
    curves = [curve[:: 65535 // most] for curve in curves]
    back = None if matrix is None else np.linalg.inv(_adapted(D65) @ _to_xyz(SRGB_XY, D65)) @ matrix
    for top in range(0, len(colour), 64):
        rows = colour[top : top + 64]
        linear = np.stack([curve[rows[..., i]] for i, curve in enumerate(curves)], axis=-1)
        if back is not None:
            linear = linear @ back.T
        linear = np.clip(linear, 0, 1)
        encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        result[top : top + 64] = np.rint(encoded * most)
    return result


def _to_xyz(primaries: Any, white: tuple[float, float]) -> Array:
    """Matrix from linear RGB to XYZ of this white."""
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in primaries]).T
    x, y = white
    return columns * np.linalg.solve(columns, np.array([x / y, 1.0, (1 - x - y) / y]))


def _adapted(white: tuple[float, float]) -> Array:
    """Bradford's adaptation from this white to D50 (ICC.1:2022, annex E)."""
    x, y = white
    cones = (_BRADFORD @ D50_XYZ) / (_BRADFORD @ np.array([x / y, 1.0, (1 - x - y) / y]))
    return np.asarray(np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD)


def _fixed(value: float) -> bytes:
    return struct.pack(">l", round(float(value) * 65536))


def _xyz(values: Any) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(value) for value in values)


def _para(curve: Curve) -> bytes:
    return b"para" + bytes(4) + struct.pack(">HH", {1: 0, 5: 3}[len(curve)], 0) + b"".join(map(_fixed, curve))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">LL2s2sLL", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _profile(space: bytes, name: str, tags: dict[bytes, bytes]) -> bytes:
    """Assemble a display profile of version 4.3; equal contents are stored once."""
    tags = {b"desc": _text(name), b"cprt": _text("No copyright, use freely"), b"wtpt": _xyz(D50_XYZ)} | tags
    offset = 128 + 4 + 12 * len(tags)
    places: dict[bytes, int] = {}
    body = b""
    for content in tags.values():
        if content not in places:
            places[content] = offset + len(body)
            body += content + bytes(-len(content) % 4)
    table = struct.pack(">L", len(tags)) + b"".join(
        struct.pack(">4sLL", tag, places[content], len(content)) for tag, content in tags.items()
    )
    date = struct.pack(">6H", 2025, 1, 1, 0, 0, 0)  # fixed: the same picture gives the same file
    header = struct.pack(">L4sL4s4s4s", offset + len(body), b"", 0x04300000, b"mntr", space, b"XYZ ") + date + b"acsp"
    header = header.ljust(64, b"\0") + struct.pack(">L", 1) + b"".join(_fixed(value) for value in D50_XYZ)
    return header.ljust(128, b"\0") + table + body
