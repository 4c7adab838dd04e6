"""Mutated files, seeded: no error but ours, no hang, no more memory than the limit, no truncated picture taken for whole.

FLASHRIB_FUZZ=5000 pytest tests/test_fuzz.py mutates 5000 files of each kind instead of 60; FLASHRIB_FUZZ_SEED chooses others.
"""

import os
import random
import resource
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from flashrib.model.checkpoint import load_model
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import FlashribError, PictureError
from flashrib.runtime.pictures.animation import read_animation
from flashrib.runtime.pictures.files import read_picture, write_picture
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.picture_files import SRGB, noise, pillow_bytes, tiff_bytes

COUNT = int(os.environ.get("FLASHRIB_FUZZ", "60"))
SEED = int(os.environ.get("FLASHRIB_FUZZ_SEED", "0"))
MOST_SECONDS = 10.0
"""Of the processor: on a machine that is busy with other things, anything may take as long."""

MOST_PIXELS = 2**22
MOST_BYTES = 700 * 2**20
"""Memory that reading may add: 24 bytes for each of `MOST_PIXELS`, and what decoders take besides."""


def pictures() -> dict[str, bytes]:
    """A small file of every kind, with metadata."""
    smooth = np.add.outer(np.arange(40) * 3, np.arange(56) * 2).astype(np.uint8)
    image = Image.fromarray(np.stack([smooth, smooth[::-1], 255 - smooth], -1) ^ (noise(40, 56, 3) >> 4))
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = "Maker", {0xA001: 0xFFFF, 0xA005: {1: "R03"}, 0x927C: bytes(40)}
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "text " * 30)
    text.add(b"gAMA", bytes([0, 1, 0x86, 0xA0]))
    text.add(b"cICP", bytes([12, 13, 0, 1]))
    frames = [image.rotate(90 * i) for i in range(1, 3)]
    return {
        "png": pillow_bytes(image, "PNG", exif=exif, icc_profile=SRGB, pnginfo=text, dpi=(300, 300)),
        "png-palette": pillow_bytes(image.convert("P"), "PNG", transparency=3),
        "apng": pillow_bytes(image, "PNG", save_all=True, append_images=frames),
        "jpeg": pillow_bytes(image, "JPEG", exif=exif, icc_profile=SRGB, comment=b"comment", dpi=(300, 300)),
        "jpeg-progressive": pillow_bytes(image.convert("L"), "JPEG", progressive=True),
        "mpo": pillow_bytes(image, "MPO", save_all=True, append_images=frames[:1]),
        "webp": pillow_bytes(image, "WEBP", lossless=True, exif=exif.tobytes(), icc_profile=SRGB),
        "webp-lossy": pillow_bytes(image, "WEBP", quality=50),
        "tiff-16": tiff_bytes(noise(20, 28, 3, dtype=np.uint16), 2),
        "tiff-lzw": pillow_bytes(image, "TIFF", compression="tiff_lzw", xmp=b"<x/>"),
        "tiff-deflate": pillow_bytes(image, "TIFF", compression="tiff_adobe_deflate", icc_profile=SRGB),
        "tiff-g4": pillow_bytes(image.convert("1"), "TIFF", compression="group4"),
        "tiff-cmyk": pillow_bytes(image.convert("CMYK"), "TIFF"),
        "bmp": pillow_bytes(image, "BMP"),
        "gif": pillow_bytes(image, "GIF", save_all=True, append_images=frames),
        "avif": pillow_bytes(image, "AVIF", quality=60, exif=exif.tobytes(), icc_profile=SRGB),
    }


PICTURES = pictures()


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The file with bytes changed, mostly near its beginning, cut out, repeated, or numbers set to extremes."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        position = min(int(chance.expovariate(3 / len(changed))), len(changed) - 1)
        kind = chance.randrange(5)
        if kind == 0:
            changed[position] ^= 1 << chance.randrange(8)
        elif kind == 1:
            changed[position] = chance.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            changed[position : position + 4] = chance.choice(
                (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\1\0\0")
            )
        elif kind == 3:
            del changed[position : position + chance.randrange(1, 40)]
        else:
            changed[position:position] = changed[position : position + chance.randrange(1, 40)]
        if not changed:
            return b"\0"
    return bytes(changed)


def with_right_sums(data: bytes) -> bytes:
    """A PNG whose chunks have right check sums, so that what they hold is looked at."""
    parts, position = [data[:8]], 8
    while position + 12 <= len(data):
        length = struct.unpack_from(">L", data, position)[0]
        body = data[position + 4 : position + 8 + length]
        parts.append(data[position : position + 4] + body + struct.pack(">L", zlib.crc32(body)))
        position += 12 + length
    return b"".join(parts)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("kind", PICTURES)
def test_mutated_pictures(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(f"{SEED} {kind}")
    path = tmp_path / "picture"
    before = peak_bytes()
    read, messages = 0, []
    for number in range(COUNT):
        data = mutated(PICTURES[kind], chance)
        if "png" in kind and number % 4:
            data = with_right_sums(data)
        path.write_bytes(data)
        started = time.process_time()
        try:
            read_animation(path, max_pixels=MOST_PIXELS)
            picture = read_picture(path, max_pixels=MOST_PIXELS)
            read += 1
            if number % 8 == 0:
                write_picture(tmp_path / "out.tif", picture, overwrite=True)
        except PictureError as error:
            messages.append(str(error))
        assert time.process_time() - started < MOST_SECONDS, number
    assert not any("\n" in message for message in messages)
    assert peak_bytes() - before < MOST_BYTES
    # Nothing is printed by libraries, whatever they meet.
    assert capfd.readouterr() == ("", "")
    # Otherwise the files would be too sound, or too damaged, to find anything.
    assert read < COUNT
    assert read > 0 or kind in ("apng", "gif")


@pytest.mark.parametrize("kind", [kind for kind in PICTURES if kind not in ("apng", "gif", "mpo")])
def test_truncated_pictures_are_refused(tmp_path: Path, kind: str) -> None:
    chance = random.Random(f"{SEED} cut {kind}")
    whole = PICTURES[kind]
    path = tmp_path / "picture"
    for _ in range(COUNT):
        path.write_bytes(whole[: chance.randrange(1, len(whole))])
        with pytest.raises(PictureError):
            read_picture(path, max_pixels=MOST_PIXELS)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg-progressive"])
def test_pictures_that_are_cut_and_closed_are_refused(tmp_path: Path, kind: str) -> None:
    chance = random.Random(f"{SEED} closed {kind}")
    whole, path = PICTURES[kind], tmp_path / "picture"
    path.write_bytes(whole)
    pixels = read_picture(path).pixels
    for _ in range(COUNT):
        path.write_bytes(whole[: chance.randrange(1, len(whole) - 2)] + b"\xff\xd9")
        try:
            differs = read_picture(path, max_pixels=MOST_PIXELS).pixels != pixels
        except PictureError:
            continue
        differs[-16:, -16:] = False  # what is missing of one block shows in nothing
        assert not differs.any()


def test_mutated_models(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    onnx = write_onnx(tmp_path / "model.onnx").read_bytes()
    write_checkpoint(tmp_path / "model.safetensors")
    messages: list[str] = []
    checkpoint = (tmp_path / "model.safetensors").read_bytes()
    for number in range(COUNT):
        for data, name, load in ((onnx, "m.onnx", describe_onnx), (checkpoint, "m.safetensors", load_model)):
            (tmp_path / name).write_bytes(mutated(data, chance))
            started = time.process_time()
            try:
                load(tmp_path / name)
            except FlashribError as error:
                messages.append(str(error))
            assert time.process_time() - started < MOST_SECONDS, number
    assert not any("\n" in message for message in messages)
