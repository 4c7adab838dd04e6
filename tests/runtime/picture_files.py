"""Pictures and picture files for the tests; those that Pillow cannot write are assembled byte by byte."""

import io
import struct
import zlib
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray
from PIL import Image, ImageCms

from flashrib.runtime.pictures.files import Picture

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape: int, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(sum(shape)).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def picture(dtype: DTypeLike = np.uint8, gray: bool = False, alpha: bool = False, side: int = 9) -> Picture:
    pixels = np.repeat(noise(side, 7, 1, dtype=dtype), 3, -1) if gray else noise(side, 7, 3, dtype=dtype)
    return Picture(pixels, noise(side, 7, dtype=dtype) if alpha else None, gray)


def png_bytes(samples: NDArray[Any], key: tuple[int, ...] = (), bits: int = 16) -> bytes:
    """A PNG whose rows use the five filters in turn, written from the specification alone."""
    height, width, channels = samples.shape
    if bits == 16:
        rows = samples.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    else:
        rows = np.packbits(
            np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., -bits:].reshape(height, -1), -1
        )
        rows = rows.astype(int)
    step = max(1, channels * bits // 8)
    raw = b""
    for y in range(height):
        up = rows[y - 1] if y else np.zeros_like(rows[0])
        left, corner = np.zeros_like(up), np.zeros_like(up)
        left[step:], corner[step:] = rows[y][:-step], up[:-step]
        p = left + up - corner
        far = np.stack([abs(p - left), abs(p - up), abs(p - corner)])
        paeth = np.choose(far.argmin(axis=0), [left, up, corner])
        predicted = [0, left, up, (left + up) // 2, paeth][y % 5]
        raw += bytes([y % 5]) + ((rows[y] - predicted) % 256).astype(np.uint8).tobytes()
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">LLBBBBB", width, height, bits, colour_type, 0, 0, 0))]
    if key:
        chunks.append((b"tRNS", struct.pack(f">{len(key)}H", *key)))
    chunks += [(b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = b"".join(struct.pack(">L", len(d)) + n + d + struct.pack(">L", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def tiff_bytes(samples: NDArray[Any], photometric: int, order: Literal["<", ">"] = "<", **tags: int) -> bytes:
    """An uncompressed TIFF of one strip; `tags` such as t338=1 are set as SHORT, also in place of what `samples` say."""
    height, width, channels = samples.shape
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    bits = samples.dtype.itemsize * 8
    entries = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: channels, 278: height}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    count = len(entries) + 2
    end = 8 + 2 + 12 * count + 4
    rows = {tag: struct.pack(order + "HHLHH", tag, 3, 1, value, 0) for tag, value in entries.items()}
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels) if channels > 1 else b""
    if channels == 2:
        rows[258] = struct.pack(order + "HHL", 258, 3, 2) + depths
    elif channels > 2:
        rows[258] = struct.pack(order + "HHLL", 258, 3, channels, end)
    rows[273] = struct.pack(order + "HHLL", 273, 4, 1, end + len(depths))
    rows[279] = struct.pack(order + "HHLL", 279, 4, 1, len(data))
    directory = struct.pack(order + "H", count) + b"".join(rows[tag] for tag in sorted(rows)) + bytes(4)
    return {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HL", 42, 8) + directory + depths + data


def pillow_bytes(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def channels_of(read: Picture) -> NDArray[Any]:
    colour = read.pixels[..., :1] if read.gray else read.pixels
    return colour if read.alpha is None else np.concatenate([colour, read.alpha[..., None]], axis=-1)
