"""Encoders of the picture formats. WebP and BMP are Pillow's; PNG and JPEG are written in blocks on all cores; TIFF, which Pillow
cannot write in colour with 16 bits, is written here.

Every encoder takes an open file, `samples` (H, W, C), C = 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha, uint8 or uint16,
what belongs to them, and a quality of 1 to 100 or None; a format without a quality ignores it.
"""

import dataclasses
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, TiffTags

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.decode import EXIF_IFD, GPS_IFD
from flashrib.runtime.pictures.jpeg import BAND_ROWS, JpegWriter
from flashrib.runtime.pictures.png import PngWriter

JPEG_QUALITY = 95
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
    """

    icc: bytes | None = None
    exif: bytes | None = None


class _WriteOnly:
    """A file with nothing but `write`.

    Given a real file, Pillow's encoders write to its descriptor and report a full disk as "encoder error -2"; without a
    descriptor they call `write`, and the operating system's own error comes through.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write


def encode_png(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a PNG of the depth of `samples`."""
    height, width, channels = samples.shape
    with PngWriter(file, height, width, channels, 8 * samples.dtype.itemsize, png_chunks(metadata)) as writer:
        writer.write(samples)


def png_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Return what stands before the pixels of a PNG."""
    chunks = []
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC Profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif.removeprefix(b"Exif\0\0")))
    return chunks


def encode_jpeg(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a JPEG without chroma subsampling, gray or RGB with 8 bits; quality 95 where None."""
    options = {"icc_profile": metadata.icc, "exif": metadata.exif or b""}
    height, width, channels = samples.shape
    with JpegWriter(file, height, width, channels, quality or JPEG_QUALITY, options) as writer:
        for rows in _row_blocks(samples, BAND_ROWS):
            writer.write(to_8_bits(rows))


def encode_webp(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a WebP, lossless where `quality` is None; it has neither gray nor 16 bits."""
    image = _pillow(to_8_bits(samples))
    image = image.convert("RGBA" if samples.shape[-1] in (2, 4) else "RGB")
    options = {"lossless": quality is None, "quality": WEBP_LOSSLESS_EFFORT if quality is None else quality}
    image.save(_as_file(file), "WEBP", icc_profile=metadata.icc or b"", exif=metadata.exif or b"", **options)


def encode_bmp(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a BMP, gray or RGB with 8 bits, which holds nothing but pixels."""
    _pillow(to_8_bits(samples)).save(_as_file(file), "BMP")


def encode_tiff(file: IO[bytes], samples: NDArray[Any], metadata: Metadata, quality: int | None = None) -> None:
    """Write a TIFF of the depth of `samples`: deflate with horizontal differences, strips of about 1 MiB.

    Source: TIFF revision 6.0 and Adobe's technical notes (compression 8). The directory stands before the strips and is
    written again once their sizes are known.

    Raises:
        PictureError: more than 4 GiB; the message lacks the file's name.
    """
    if samples.dtype == np.uint16 and samples.shape[-1] == 2:
        # Gray with alpha at 16 bits is legal, but Pillow refuses it; a gray profile does not fit colour.
        samples, metadata = samples[..., [0, 0, 0, 1]], dataclasses.replace(metadata, icc=None)
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
    if metadata.exif:
        block = Image.Exif()
        block.load(metadata.exif)
        for tag in block:
            directory[tag] = block.get_ifd(tag) if tag in (EXIF_IFD, GPS_IFD) else block[tag]
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
    if metadata.icc:
        directory.tagtype[34675] = TiffTags.UNDEFINED
        directory[34675] = metadata.icc
    return directory


def _row_blocks(samples: NDArray[Any], rows: int) -> Iterator[NDArray[Any]]:
    return (samples[top : top + rows] for top in range(0, samples.shape[0], rows))


def _pillow(samples: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[-1] == 1 else samples))


def _as_file(file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], _WriteOnly(file))
