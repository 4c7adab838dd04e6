"""Curves and matrices out of ICC profiles, for pixels of 16 bits (ICC.1:2022, sections 7, 10.6, 10.18 and 10.31)."""

import struct

import numpy as np
from numpy.typing import NDArray

Curve = tuple[float, ...]
Array = NDArray[np.float64]

MOST_TAGS = 256
INPUTS = np.arange(65536) / 65535


def read_tags(icc: bytes) -> dict[bytes, bytes]:
    """Return the contents of a profile's tags; those that do not lie in it are left out."""
    if len(icc) < 132:
        return {}
    (count,) = struct.unpack_from(">L", icc, 128)
    tags = {}
    for index in range(min(count, MOST_TAGS, (len(icc) - 132) // 12)):
        name, offset, size = struct.unpack_from(">4sLL", icc, 132 + 12 * index)
        if offset + size <= len(icc):
            tags[name] = icc[offset : offset + size]
    return tags


def tags_to_linear(tags: dict[bytes, bytes], gray: bool) -> tuple[list[Array], Array | None] | None:
    """Return what makes pixels linear: a curve of 65536 values per channel, and the matrix to XYZ of D50 (None of gray).

    None where the profile has tables or something else in place of curves and a matrix.
    """
    if any(name in tags for name in (b"A2B0", b"A2B1", b"D2B0", b"D2B1")):
        return None
    try:
        if gray:
            return [_curve(tags[b"kTRC"])], None
        curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        columns = [np.array(struct.unpack_from(">3l", tags[name], 8)) / 65536 for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
    except (KeyError, struct.error, ValueError):
        return None
    return curves, np.stack(columns, axis=1)


def _curve(content: bytes) -> Array:
    """Values of a curve at 65536 equally spaced inputs.

    Raises:
        ValueError, struct.error: it is not a curve that is known here.
    """
    kind = content[:4]
    if kind == b"curv":
        (count,) = struct.unpack_from(">L", content, 8)
        if count == 0:
            return INPUTS.copy()
        if count == 1:
            return np.asarray(INPUTS ** (struct.unpack_from(">H", content, 12)[0] / 256))
        table = np.frombuffer(content, ">u2", count, 12) / 65535
        return np.interp(INPUTS, np.linspace(0, 1, count), table)
    if kind == b"para":
        return _parametric(struct.unpack_from(">H", content, 8)[0], content)
    raise ValueError(f"{kind!r} is not a curve")


def _parametric(function: int, content: bytes) -> Array:
    count = (1, 3, 4, 5, 7)[function] if function < 5 else 0
    if not count:
        raise ValueError(f"the parametric curve {function} is not known")
    values = [value / 65536 for value in struct.unpack_from(f">{count}l", content, 12)]
    g, a, b, c, d, e, f = (values + [1.0, 0.0, 0.0, 0.0, 0.0, 0.0][len(values) - 1 :])[:7]
    if function in (1, 2):
        # Zero, or the constant c, left of -b / a; in the terms of function 4.
        if a == 0:
            raise ValueError("the curve has no slope")
        offset = c if function == 2 else 0.0
        c, d, e, f = 0.0, -b / a, offset, offset
    with np.errstate(invalid="ignore"):
        curve = np.where(d <= INPUTS, np.maximum(a * INPUTS + b, 0) ** g + e, c * INPUTS + f)
    return np.asarray(np.clip(curve, 0, 1))
