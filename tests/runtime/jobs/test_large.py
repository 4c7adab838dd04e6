"""Pictures in bands of rows: the same result as in one piece, whatever the formats, and memory that the height does not set."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from flashrib.runtime.errors import PictureError
from flashrib.runtime.jobs.large import not_in_bands_because, result_bytes, upscale_large
from flashrib.runtime.jobs.plan import plan_jobs
from flashrib.runtime.jobs.run import Done, Options, run_jobs
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.large.source import VipsSource
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.upscale import upscale_array
from tests.places import ROOT
from tests.runtime.pictures.test_colours import with_chunks
from tests.runtime.sessions.fakes import BlurredWindowSession

pytest.importorskip("pyvips")
tifffile = pytest.importorskip("tifffile")


@pytest.fixture
def session() -> Session:
    """A network whose result depends on the tiles, if they are not aligned or lack a halo."""
    return BlurredWindowSession()


def picture(height: int, width: int, dtype: Any = np.uint8, channels: int = 3) -> NDArray[Any]:
    most = np.iinfo(dtype).max
    generator = np.random.default_rng(3)
    pixels = generator.integers(0, most, (height, width, channels), dtype=dtype, endpoint=True)
    return pixels[..., 0] if channels == 1 else pixels


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint8, 1), (np.uint16, 3), (np.uint16, 1)])
def test_equals_the_whole(suffix: str, dtype: Any, channels: int, session: Session, tmp_path: Path) -> None:
    pixels = picture(150, 90, dtype, channels)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb" if channels == 3 else "minisblack")
    size = upscale_large(session, tmp_path / "in.tif", tmp_path / f"out.{suffix}", tile=32, halo=16)
    assert size == (150, 90, ())
    whole = upscale_array(session, pixels, tile=32, halo=16)
    if suffix == "tif":
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), whole)
    else:
        seen = read_picture(tmp_path / "out.png")
        np.testing.assert_array_equal(seen.pixels[..., 0] if channels == 1 else seen.pixels, whole)


def test_jpeg_in_and_out(session: Session, tmp_path: Path) -> None:
    Image.fromarray(picture(150, 90)).save(tmp_path / "in.jpg", quality=90)
    upscale_large(session, tmp_path / "in.jpg", tmp_path / "out.jpg", tile=32, halo=16, quality=95)
    whole = upscale_array(session, read_picture(tmp_path / "in.jpg").pixels, tile=32, halo=16)
    Image.fromarray(whole).save(tmp_path / "whole.jpg", quality=95, subsampling=0)
    np.testing.assert_array_equal(
        read_picture(tmp_path / "out.jpg").pixels, read_picture(tmp_path / "whole.jpg").pixels
    )


def test_rows_are_kept_as_long_as_they_are_needed(tmp_path: Path) -> None:
    pixels = picture(300, 40)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    source = VipsSource(tmp_path / "in.png")
    np.testing.assert_array_equal(source.read(slice(0, 64), slice(8, 30)), pixels[:64, 8:30])
    source.forget(50)
    np.testing.assert_array_equal(source.read(slice(50, 200), slice(0, 40)), pixels[50:200])
    with pytest.raises(ValueError, match="was forgotten"):
        source.read(slice(49, 60), slice(0, 40))


def test_profile_and_exif_are_kept(session: Session, tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E] = "a description"
    Image.fromarray(picture(64, 64)).save(tmp_path / "in.png", icc_profile=profile, exif=exif)
    for name in ("out.png", "out.jpg", "out.tif"):
        upscale_large(session, tmp_path / "in.png", tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == profile
            if name != "out.tif":
                assert image.getexif()[0x010E] == "a description"


@pytest.mark.parametrize(("point", "tie"), [(False, (20.0, 40.0)), (True, (20.5, 40.5))])
def test_the_place_on_the_earth(point: bool, tie: tuple[float, float], session: Session, tmp_path: Path) -> None:
    """The ground under the corner of the result is that under the corner of the source."""
    keys = (1, 1, 0, 2, 1025, 0, 1, 2 if point else 1, 3072, 0, 1, 32633)
    tags = [
        (33550, 12, 3, (10.0, 10.0, 0.0)),
        (33922, 12, 6, (10.0, 20.0, 0.0, 500000.0, 6000000.0, 0.0)),
        (34735, 3, len(keys), keys),
        (42113, 2, 0, "-9999"),
    ]
    tifffile.imwrite(tmp_path / "in.tif", picture(64, 64), photometric="rgb", extratags=tags, metadata=None)
    upscale_large(session, tmp_path / "in.tif", tmp_path / "out.tif")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        found = {tag.code: tag.value for tag in tiff.pages[0].tags}
    assert found[33550] == (5.0, 5.0, 0.0)
    assert found[33922] == (*tie, 0.0, 500000.0, 6000000.0, 0.0)
    assert tuple(found[34735]) == keys
    assert found[42113] == "-9999"


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("in.png", {"mode": "RGBA"}, "RGBA"),
        ("in.png", {"mode": "P"}, "kind P"),
        ("in.jpg", {"progressive": True}, "progressive"),
        ("in.webp", {}, "WEBP is not read in bands"),
    ],
)
def test_what_is_read_as_a_whole(name: str, options: dict[str, Any], says: str, tmp_path: Path) -> None:
    mode = options.pop("mode", "RGB")
    Image.fromarray(picture(20, 20)).convert(mode).save(tmp_path / name, **options)
    assert says in (not_in_bands_because(tmp_path / name, tmp_path / "out.png") or "")
    assert "not written in bands" in (not_in_bands_because(tmp_path / name, tmp_path / "out.webp") or "")


def test_jobs_choose_bands(session: Session, tmp_path: Path) -> None:
    Image.fromarray(picture(100, 60)).save(tmp_path / "in.png")
    assert result_bytes(tmp_path / "in.png", 2) == 100 * 60 * 4 * 3
    results = []
    for name, start in (("bands.png", 0), ("whole.png", 10**9)):
        jobs = plan_jobs([str(tmp_path / "in.png")], str(tmp_path / name))
        (done,) = run_jobs(session, jobs, Options(tile=32, halo=16, bands_from=start))
        assert not isinstance(done, Exception)
        assert (done.output_width, done.output_height) == (120, 200)
        results.append(read_picture(tmp_path / name).pixels)
    np.testing.assert_array_equal(*results)


def test_damage_leaves_nothing(session: Session, tmp_path: Path) -> None:
    Image.fromarray(picture(200, 200)).save(tmp_path / "in.png")
    content = (tmp_path / "in.png").read_bytes()
    (tmp_path / "in.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(PictureError, match="damaged or truncated"):
        upscale_large(session, tmp_path / "in.png", tmp_path / "out.png", tile=32, halo=16)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


PEAK = """
import resource, sys
from pathlib import Path
import numpy as np
import tifffile
from flashrib.runtime.jobs.large import upscale_large
from tests.places import ROOT
from tests.runtime.sessions.fakes import FakeSession

height = int(sys.argv[1])
rows = (np.full((256, 256, 3), row % 255, np.uint8) for row in range(height // 256 * 4))
tifffile.imwrite("in.tif", rows, shape=(height, 1024, 3), dtype=np.uint8, tile=(256, 256), photometric="rgb", metadata=None)
upscale_large(FakeSession(), Path("in.tif"), Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.png", "out.tif", "out.jpg"])
def test_the_height_does_not_set_the_memory(name: str, tmp_path: Path) -> None:
    """Eight times the rows: the results differ by 176 MB, the peaks by less than a tenth of that."""
    peaks = []
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for height in (2048, 16384):
        command = [sys.executable, "-c", PEAK, str(height), name]
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout))
    more = 2 * (16384 - 2048) * 2048 * 3 / 1024
    assert peaks[1] - peaks[0] < more / 10


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("strip", [False, True])
def test_what_belongs_to_the_picture(suffix: str, strip: bool, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = "Maker", {0x9003: "2024:01:01 00:00:00"}
    Image.fromarray(picture(40, 30)).save(
        tmp_path / "in.jpg", exif=exif, comment=b"hello", dpi=(300, 300), xmp=b"<x:xmpmeta/>", quality=95
    )
    jobs = plan_jobs([str(tmp_path / "in.jpg")], str(tmp_path / f"out.{suffix}"))
    (done,) = run_jobs(BlurredWindowSession(), jobs, Options(bands_from=1, strip=strip))
    assert isinstance(done, Done), done
    extras = read_picture(tmp_path / f"out.{suffix}").extras
    with Image.open(tmp_path / f"out.{suffix}") as image:
        block = image.getexif()
        said = block.get(0x010F), block.get_ifd(0x8769).get(0x9003)
    if strip:
        assert done.lost == ()
        assert (said, extras.xmp, extras.comment, extras.density, extras.text) == ((None, None), None, None, None, ())
        return
    # Sub-directories are no part of a TIFF that is written in bands.
    assert said == ("Maker", None if suffix == "tif" else "2024:01:01 00:00:00")
    assert done.lost == (("its comment", "EXIF") if suffix == "tif" else ())
    assert extras.xmp == b"<x:xmpmeta/>"
    assert extras.density == pytest.approx((300, 300), abs=0.1)
    comment = {"png": (None, (("Comment", "hello"),)), "jpg": (b"hello", ()), "tif": (None, ())}[suffix]
    assert (extras.comment, extras.text) == comment


def test_colours_that_no_profile_can_hold_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(with_chunks((b"cICP", bytes([9, 16, 0, 1]))))
    for suffix, failed in (("jpg", True), ("tif", True), ("png", False)):
        jobs = plan_jobs([str(tmp_path / "in.png")], str(tmp_path / f"out.{suffix}"))
        (done,) = run_jobs(BlurredWindowSession(), jobs, Options(bands_from=1))
        assert ("PQ colours (HDR)" in str(done)) == failed


def test_larger_pictures_than_allowed_are_refused(tmp_path: Path) -> None:
    Image.fromarray(picture(40, 30)).save(tmp_path / "in.png")
    jobs = plan_jobs([str(tmp_path / "in.png")], str(tmp_path / "out.png"))
    (done,) = run_jobs(BlurredWindowSession(), jobs, Options(bands_from=1, max_pixels=1199))
    assert "30 x 40 pixels are more than the limit of 1199; " in str(done)
    assert not (tmp_path / "out.png").exists()
    (done,) = run_jobs(BlurredWindowSession(), jobs, Options(bands_from=1, max_pixels=1200))
    assert not isinstance(done, Exception), done
