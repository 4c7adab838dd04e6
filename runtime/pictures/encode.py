"""Encoders of the picture formats. PNG and JPEG are written in blocks on all cores; TIFF, which Pillow cannot write in colour with
16 bits, is written here; the others are Pillow's.

Every encoder takes an open file, `samples` (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha, uint8 or uint16,
what belongs to them, and a quality of 1 to 100 or None; a format without a quality ignores it.
"""

import dataclasses
import importlib
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, TiffTags

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.jpeg import BAND_ROWS, JpegWriter
from flashrib.runtime.pictures.metadata import EXIF_IFD, GPS_IFD, XMP_KEYWORD
from flashrib.runtime.pictures.picture import Extras
from flashrib.runtime.pictures.png import LEVEL, PngWriter

JPEG_QUALITY = 95
AVIF_QUALITY = 90
METRES_PER_INCH = 0.0254
LONG_TEXT = 1024  # bytes of a text of PNG that is compressed
# Higher levels make photographs a few percent smaller and take two to three times as long.
DEFLATE_LEVEL = 3
# Likewise for lossless WebP: 20 instead of 80 costs 0.3 percent of size and takes a third of the time.
WEBP_LOSSLESS_EFFORT = 20
STRIP_BYTES = 2**20
TIFF_LIMIT = 2**32


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is written beside the pixels.

    Attributes:
        icc: ICC profile of the pixels as they are written.
        exif: EXIF block ("Exif\\0\\0" and a TIFF structure).
        extras: what else the format can hold; an encoder ignores the rest.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    extras: Extras = dataclasses.field(default_factory=Extras)


class _WriteOnly:
    """A file with nothing but `write`.

    Given a real file, Pillow's encoders write to its descriptor and report a full disk as "encoder error -2"; without a
    descriptor they call `write`, and the operating system's own error comes through.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def encode_png(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, level: int | None = None) -> None:
    """Write a PNG of the depth of `samples`, compressed at a level of 0 to 9."""
    height, width, channels = samples.shape
    level = LEVEL if level is None else level
    with PngWriter(file, height, width, channels, samples.itemsize * 8, png_chunks(metadata), level) as writer:
        writer.write(samples)


def encode_jpeg(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a JPEG without chroma subsampling, gray or RGB with 8 bits; quality 95 where None."""
    height, width, channels = samples.shape
    with JpegWriter(file, height, width, channels, quality or JPEG_QUALITY, jpeg_options(metadata)) as writer:
        for rows in _row_blocks(samples, BAND_ROWS):
            writer.write(to_8_bits(rows))


def encode_webp(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a WebP, lossless where `quality` is None."""
    options = {"lossless": quality is None, "quality": WEBP_LOSSLESS_EFFORT if quality is None else quality}
    _pillow(to_8_bits(samples)).save(_as_file(file), "WEBP", **pillow_blocks(metadata), **options)


def encode_avif(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write an AVIF with 8 bits and without chroma subsampling; quality 90 where None."""
    image = _pillow(to_8_bits(samples))
    image.save(_as_file(file), "AVIF", quality=quality or AVIF_QUALITY, subsampling="4:4:4", **pillow_blocks(metadata))


def encode_jxl(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a JPEG XL with 8 bits, lossless where `quality` is None; its encoder takes no profile."""
    importlib.import_module("pillow_jxl")  # teaches Pillow the format
    options: dict[str, Any] = {"lossless": True} if quality is None else {"quality": quality}
    if metadata.exif or metadata.extras.xmp:
        options |= {"use_container": True, "exif": metadata.exif, "xmp": metadata.extras.xmp}
    _pillow(to_8_bits(samples)).save(_as_file(file), "JXL", **options)


def encode_bmp(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a BMP, gray or RGB with 8 bits, which holds nothing but pixels and their density."""
    density = metadata.extras.density
    _pillow(to_8_bits(samples)).save(_as_file(file), "BMP", **({"dpi": density} if density else {}))


def encode_tiff(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a TIFF of the depth of `samples`: deflate with horizontal differences, strips of about 1 MiB.

    Source: TIFF revision 6.0 and Adobe's technical notes (compression 8). The directory stands before the strips and is
    written again once their sizes are known.

    Raises:
        PictureError: more than 4 GiB; the message lacks the file's name.
    """
    height = samples.shape[0]
    rows_per_strip = max(1, STRIP_BYTES // samples[0].nbytes)
    strips = -(-height // rows_per_strip)
    directory = _tiff_directory(samples, rows_per_strip, metadata)

    def header(sizes: list[int]) -> bytes:
        # Pillow counts strip offsets from the end of the directory.
        for tag, values in ((273, [sum(sizes[:i]) for i in range(strips)] if any(sizes) else sizes), (279, sizes)):
            directory.tagtype[tag] = TiffTags.LONG
            directory[tag] = tuple(values)
        return b"II*\0" + struct.pack("<L", 8) + directory.tobytes(8)

    file.write(header([0] * strips))
    sizes = []
    for block in _row_blocks(samples, rows_per_strip):
        # Differences along the row, channel by channel; they wrap around, as the format wants.
        differences = block.astype(block.dtype.newbyteorder("<"))
        differences[:, 1:] -= block[:, :-1]
        sizes.append(file.write(zlib.compress(differences.tobytes(), DEFLATE_LEVEL)))
        if file.tell() >= TIFF_LIMIT:
            raise PictureError("the picture takes more than the 4 GiB that TIFF can hold; write a PNG instead")
    file.seek(0)
    file.write(header(sizes))


def to_8_bits(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Round uint16 samples to uint8 (65535 -> 255); uint8 is returned as it is."""
    if samples.dtype == np.uint8:
        return samples
    rounded = np.empty(samples.shape, np.uint8)
    for top in range(0, samples.shape[0], 256):
        # 65535 = 255 * 257
        rounded[top : top + 256] = (samples[top : top + 256].astype(np.uint32) + 128) // 257
    return rounded


def _tiff_directory(
    samples: NDArray[Any], rows_per_strip: int, metadata: Metadata
) -> TiffImagePlugin.ImageFileDirectory_v2:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    extras = metadata.extras
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif)
        for tag in exif:
            directory[tag] = exif.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else exif[tag]
    height, width, channels = samples.shape
    directory[256], directory[257] = width, height
    directory[258] = (samples.dtype.itemsize * 8,) * channels
    directory[259] = 8  # deflate
    directory[262] = 2 if channels > 2 else 1  # RGB, or gray with 0 as black
    directory[277] = channels
    directory[278] = rows_per_strip
    directory[284] = 1  # interleaved
    directory[317] = 2  # horizontal differences
    if channels in (2, 4):
        directory[338] = 2  # alpha, not multiplied into the colours
    if extras.density and 282 not in directory:
        directory[282], directory[283], directory[296] = *extras.density, 2  # inches
    for tag, block, kind in ((700, extras.xmp, TiffTags.BYTE), (33723, extras.iptc, TiffTags.UNDEFINED)):
        if block:
            directory.tagtype[tag] = kind
            directory[tag] = block
    if metadata.icc:
        directory.tagtype[34675] = TiffTags.UNDEFINED
        directory[34675] = metadata.icc
    return directory


def jpeg_options(metadata: Metadata) -> dict[str, Any]:
    """Return what is written beside the pixels of a JPEG, as Pillow takes it."""
    extras = metadata.extras
    options: dict[str, Any] = {"icc_profile": metadata.icc, "exif": metadata.exif or b"", "comment": extras.comment}
    if extras.density:
        options["dpi"] = extras.density
    if extras.xmp:
        options["xmp"] = extras.xmp
    if extras.iptc:
        options["extra"] = _photoshop_segment(extras.iptc)
    return options


def png_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Return (name, content) of the chunks before the pixels, in the order that PNG 3rd edition, section 5.6, asks for."""
    extras = metadata.extras
    chunks = []
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    # A profile and sRGB must not stand together.
    chunks += [(name, content) for name, content in extras.colour_chunks if not (metadata.icc and name == b"sRGB")]
    if extras.density:
        chunks.append((b"pHYs", struct.pack(">LLB", *(round(dots / METRES_PER_INCH) for dots in extras.density), 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
    if extras.xmp:
        chunks.append((b"iTXt", XMP_KEYWORD.encode() + bytes(5) + extras.xmp))
    for keyword, text in extras.text:
        chunks.append(_text_chunk(keyword, text))
    return chunks


def _text_chunk(keyword: str, text: str) -> tuple[bytes, bytes]:
    """tEXt, zTXt where it is long, iTXt where Latin-1 does not do (PNG 3rd edition, section 11.3.3)."""
    name = keyword.encode("latin-1", "replace")[:79] + b"\0"
    try:
        content = text.encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", name + bytes(4) + text.encode()
    return (b"tEXt", name + content) if len(content) < LONG_TEXT else (b"zTXt", name + b"\0" + zlib.compress(content))


def _photoshop_segment(iptc: bytes) -> bytes:
    """APP13 of a JPEG with the image resource 0x0404 of Photoshop, which holds IPTC."""
    resource = b"8BIM" + struct.pack(">HHL", 0x0404, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)
    content = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def pillow_blocks(metadata: Metadata) -> dict[str, Any]:
    """Profile, EXIF and XMP as Pillow's encoders take them."""
    blocks = {"icc_profile": metadata.icc, "exif": metadata.exif, "xmp": metadata.extras.xmp}
    return {name: block or b"" for name, block in blocks.items()}


def _row_blocks(samples: NDArray[Any], rows: int) -> Iterator[NDArray[Any]]:
    return (samples[top : top + rows] for top in range(0, samples.shape[0], rows))


def _pillow(samples: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[-1] == 1 else samples))


def _as_file(file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], _WriteOnly(file))
