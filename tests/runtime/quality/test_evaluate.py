"""The literature's evaluation: how pairs are found, what is compared, and its figures for bicubic interpolation."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.files import Picture, write_picture
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.quality.evaluate import Pair, average, evaluate, find_pairs
from flashrib.runtime.quality.metrics import psnr, ssim
from tests.places import SHARED
from tests.runtime.picture_files import noise
from tests.runtime.sessions.fakes import FakeSession, SmallMemorySession


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return folder


def found(pairs: list[Pair]) -> list[tuple[str, str, str | None]]:
    return [(pair.name, pair.high.name, pair.low.name if pair.low else None) for pair in pairs]


@pytest.mark.parametrize(
    ("files", "pairs"),
    [
        (
            [
                "img_002_SRF_2_LR.png",
                "img_002_SRF_2_HR.png",
                "img_001_SRF_2_HR.png",
                "img_001_SRF_2_LR.png",
                "readme.txt",
            ],
            [
                ("img_001", "img_001_SRF_2_HR.png", "img_001_SRF_2_LR.png"),
                ("img_002", "img_002_SRF_2_HR.png", "img_002_SRF_2_LR.png"),
            ],
        ),
        (["cat_HR.png", "cat_LR.jpg", "other.png"], [("cat", "cat_HR.png", "cat_LR.jpg")]),
        (["b-hr.PNG", "b-lr.bmp"], [("b", "b-hr.PNG", "b-lr.bmp")]),
        (["b.png", "a.webp", ".hidden.png"], [("a", "a.webp", None), ("b", "b.png", None)]),
        (["cat_HR.png"], [("cat_HR", "cat_HR.png", None)]),
    ],
    ids=["SelfExSR", "other extension", "other case", "high alone", "HR alone"],
)
def test_pairs_of_one_folder(files: list[str], pairs: list[tuple[str, str, str | None]], tmp_path: Path) -> None:
    assert found(find_pairs(touch(tmp_path, *files))) == pairs


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("0801.png", "0801x2.png"),
        ("0801.png", "0801.png"),
        ("baby_HR.png", "baby-x2_LR.png"),
        ("img_001_SRF_2_HR.png", "img_001_SRF_2_LR.png"),
        ("foo_x2.png", "foo_x2.png"),
    ],
)
def test_pairs_of_two_folders(high: str, low: str, tmp_path: Path) -> None:
    touch(tmp_path, f"hr/{high}", f"lr/{low}", "lr/unused.png")
    assert [(p.high.name, p.low and p.low.name) for p in find_pairs(tmp_path / "hr", tmp_path / "lr")] == [(high, low)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["hr/a.png", "lr/b.png"], r"hr/a\.png: no low-resolution picture a\* in .*lr$"),
        (["hr/a.png", "lr/ax2.png", "lr/ax4.png"], r"several low-resolution pictures, ax2\.png and ax4\.png, in"),
        (["hr/a.png", "lr/a.txt"], r"lr: no pictures in this folder"),
        (["hr/a.png"], r"lr: cannot be read as a folder of pictures: No such file"),
    ],
)
def test_pictures_without_a_partner(files: list[str], message: str, tmp_path: Path) -> None:
    touch(tmp_path, *files)
    with pytest.raises(PictureError, match=message):
        find_pairs(tmp_path / "hr", tmp_path / "lr")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a_HR.png", "b_HR.png", "a_LR.png"], r"b_HR\.png: no low-resolution picture b\*"),
        (["a_HR.png", "a_LR.png", "b_LR.png"], r"b_LR\.png: no high-resolution picture NAME_HR beside it"),
    ],
)
def test_half_a_pair_in_one_folder(files: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=message):
        find_pairs(touch(tmp_path, *files))


def write(path: Path, pixels: np.ndarray, gray: bool = False) -> Path:
    pixels = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, -1)
    write_picture(path, Picture(pixels, gray=gray))
    return path


@pytest.mark.parametrize("gray", [False, True], ids=["RGB", "gray"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16], ids=["8", "16"])
def test_the_figures(gray: bool, dtype: type, tmp_path: Path) -> None:
    shape = (40, 44) if gray else (40, 44, 3)
    factor = 257 if dtype is np.uint16 else 1
    high, low = noise(*shape), noise(20, *(22, 3)[: len(shape) - 1])
    pair = Pair(
        "x",
        write(tmp_path / "h.png", high.astype(dtype) * factor, gray),
        write(tmp_path / "l.png", low.astype(dtype) * factor, gray),
    )
    (score,) = evaluate(FakeSession(), [pair])
    nearest, bicubic = low.repeat(2, 0).repeat(2, 1), imresize(low, 2)
    assert (score.name, score.height, score.width) == ("x", 40, 44)
    assert (score.psnr, score.ssim) == (psnr(nearest, high, 2), ssim(nearest, high, 2))
    assert (score.bicubic_psnr, score.bicubic_ssim) == (psnr(bicubic, high, 2), ssim(bicubic, high, 2))


@pytest.mark.parametrize("scale", [2, 3])
def test_a_low_resolution_picture_is_made_of_the_cropped_one(scale: int, tmp_path: Path) -> None:
    high = noise(47, 53, 3)
    (score,) = evaluate(FakeSession(scale), [Pair("x", write(tmp_path / "h.png", high), None)])
    cropped = high[: 47 // scale * scale, : 53 // scale * scale]
    low = imresize(cropped, 1 / scale)
    assert (score.height, score.width) == cropped.shape[:2]
    assert score.psnr == psnr(low.repeat(scale, 0).repeat(scale, 1), cropped, scale)
    assert score.bicubic_psnr == psnr(imresize(low, scale), cropped, scale)


def test_a_picture_of_a_size_that_the_scale_does_not_divide_is_cropped(tmp_path: Path) -> None:
    high, low = noise(41, 45, 3), noise(20, 22, 3)
    (score,) = evaluate(FakeSession(), [Pair("x", write(tmp_path / "h.png", high), write(tmp_path / "l.png", low))])
    assert score.psnr == psnr(low.repeat(2, 0).repeat(2, 1), high[:40, :44], 2)


def test_pictures_are_upscaled_whole_unless_asked_otherwise(tmp_path: Path) -> None:
    pairs = [Pair("x", write(tmp_path / "h.png", noise(600, 40, 3)), None)]
    whole, tiled, small = FakeSession(), FakeSession(), SmallMemorySession()
    list(evaluate(whole, pairs))
    assert whole.shapes == [(300, 20)]
    list(evaluate(tiled, pairs, tile=64, halo=8))
    assert len(tiled.shapes) > 1
    small.limit = 250 * 20
    list(evaluate(small, pairs, halo=8))
    assert len(small.shapes) > 1


@pytest.mark.parametrize(
    ("high", "low", "message"),
    [
        ((40, 44), (20, 21), r"h\.png: has 44x40 pixels, but l\.png upscaled by 2 has 42x40"),
        ((42, 44), (20, 22), r"h\.png: has 44x42 pixels, but l\.png upscaled by 2 has 44x40"),
        ((40, 44), (21, 22), r"h\.png: has 44x40 pixels, but l\.png upscaled by 2 has 44x42"),
        ((12, 44), None, r"h\.png: ssim needs 11 pixels a side, not 40 x 8"),
        ((1, 44), None, r"h\.png: 44x1 pixels are too few to reduce by 2"),
    ],
)
def test_sizes_that_do_not_fit(
    high: tuple[int, int], low: tuple[int, int] | None, message: str, tmp_path: Path
) -> None:
    low_file = None if low is None else write(tmp_path / "l.png", noise(*low, 3))
    with pytest.raises(PictureError, match=message):
        list(evaluate(FakeSession(), [Pair("x", write(tmp_path / "h.png", noise(*high, 3)), low_file)]))


def test_average(tmp_path: Path) -> None:
    pairs = [Pair(str(i), write(tmp_path / f"{i}.png", noise(40 + i, 40, 3)), None) for i in range(3)]
    scores = list(evaluate(FakeSession(), pairs))
    mean = average(scores)
    assert mean.name == "average"
    for name in ("psnr", "ssim", "bicubic_psnr", "bicubic_ssim"):
        assert getattr(mean, name) == pytest.approx(np.mean([getattr(score, name) for score in scores]), abs=1e-12)
    assert math.isinf(average([scores[0], scores[0].__class__("x", 1, 1, math.inf, 1, 1, 1)]).psnr)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "wanted"), [("Set5", (33.674, 0.9303)), ("Set14", (30.232, 0.8691))])
def test_bicubic_has_the_figures_of_the_literature(name: str, wanted: tuple[float, float]) -> None:
    """Published: 33.66 / 0.9299 and 30.24 / 0.8688 (VDSR, 2016)."""
    pairs = find_pairs(SHARED / "data" / name / "x2")
    assert len(pairs) == int(re.sub(r"\D", "", name))
    mean = average(list(evaluate(FakeSession(), pairs)))
    assert (round(mean.bicubic_psnr, 3), round(mean.bicubic_ssim, 4)) == wanted
