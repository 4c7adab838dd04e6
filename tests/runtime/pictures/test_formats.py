"""The table of formats agrees with itself and with what its encoders do."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.pictures.formats import FORMATS, SUFFIXES, Format, format_of
from tests.runtime.picture_files import SRGB, noise

EVERY_FORMAT = pytest.mark.parametrize(
    "row", [row for row in FORMATS if row.encode and row.opened_as], ids=lambda row: row.name
)


def test_no_suffix_stands_for_two_formats() -> None:
    assert len(set(SUFFIXES)) == len(SUFFIXES)
    assert format_of("a.JPG") is format_of("b.jpeg")
    assert format_of("a.txt") is None
    assert format_of("png") is None


@EVERY_FORMAT
def test_what_a_format_can_hold(tmp_path: Path, row: Format) -> None:
    for suffix in row.suffixes:
        path = tmp_path / f"a{suffix}"
        write_picture(path, Picture(noise(9, 7, 3), icc=SRGB))
        with Image.open(path) as image:
            assert image.format in row.opened_as
        read = read_picture(path)
        assert (read.icc is not None) == ("icc" in row.keeps)
        write_picture(path, Picture(np.repeat(noise(9, 7, 1), 3, -1), gray=True), overwrite=True)
        assert read_picture(path).gray == row.gray
        see_through = Picture(noise(9, 7, 3), noise(9, 7))
        if row.alpha:
            write_picture(path, see_through, overwrite=True)
            alpha = read_picture(path).alpha
            assert alpha is not None
            assert np.abs(alpha.astype(int) - noise(9, 7)).mean() < 1
        else:
            with pytest.raises(PictureError, match="cannot keep transparency"):
                write_picture(path, see_through, overwrite=True)


def test_pictures_in_a_folder(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.tiff", "notes.txt", ".hidden.png", "sub/c.webp", ".git/d.png", "out/e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()

    def names(**options: object) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in list_pictures(tmp_path, **options)]

    assert names() == ["a.tiff", "b.PNG"]
    assert names(recursive=True) == ["a.tiff", "b.PNG", "out/e.png", "sub/c.webp"]
    assert names(recursive=True, besides=tmp_path / "out") == ["a.tiff", "b.PNG", "sub/c.webp"]
    with pytest.raises(PictureError, match=r"folder\.png: no pictures in this folder \(\.png, "):
        list_pictures(tmp_path / "folder.png")
    with pytest.raises(PictureError, match="cannot be read as a folder of pictures: No such file"):
        list_pictures(tmp_path / "none")
