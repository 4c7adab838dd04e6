"""What libtiff says is heard and not printed, and what others print meanwhile is left alone."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.libtiff import libtiff_errors
from tests.runtime.picture_files import noise, pillow_bytes


def damaged(kind: str) -> bytes:
    image = Image.fromarray(noise(64, 64, 3))
    data = bytearray(pillow_bytes(image.convert("1") if kind == "group4" else image, "TIFF", compression=kind))
    data[300:400] = b"\xff" * 100
    return bytes(data)


@pytest.mark.parametrize("kind", ["tiff_lzw", "tiff_adobe_deflate", "group4", "jpeg"])
def test_damage_is_an_error_and_prints_nothing(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    # Pillow alone takes the group 4 page as whole.
    (tmp_path / "a.tif").write_bytes(damaged(kind))
    with pytest.raises(PictureError, match="damaged or truncated"):
        read_picture(tmp_path / "a.tif")
    assert capfd.readouterr() == ("", "")


def test_what_other_threads_print_meanwhile_arrives(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.tif").write_bytes(damaged("tiff_lzw"))
    done, lines = threading.Event(), 0

    def read() -> None:
        for _ in range(50):
            with pytest.raises(PictureError):
                read_picture(tmp_path / "a.tif")
        done.set()

    thread = threading.Thread(target=read)
    thread.start()
    while not done.is_set():
        os.write(2, b"a line\n")
        lines += 1
    thread.join()
    assert lines > 10
    assert capfd.readouterr().err == "a line\n" * lines


def test_libtiff_prints_as_ever_elsewhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with libtiff_errors():
        pass
    (tmp_path / "a.tif").write_bytes(damaged("tiff_lzw"))
    with pytest.raises(OSError, match="decoder error"), Image.open(tmp_path / "a.tif") as image:
        image.load()
    assert "Using code not yet in table" in capfd.readouterr().err


def test_a_sound_picture_is_read(tmp_path: Path) -> None:
    pixels = noise(64, 64, 3)
    (tmp_path / "a.tif").write_bytes(pillow_bytes(Image.fromarray(pixels), "TIFF", compression="tiff_lzw"))
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)
