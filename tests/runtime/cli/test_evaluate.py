"""`flashrib evaluate`, with a model that repeats pixels."""

import json
from pathlib import Path

import pytest

from flashrib.runtime.cli import main
from flashrib.runtime.pictures.files import Picture, write_picture
from flashrib.runtime.quality.evaluate import average, evaluate, find_pairs
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("model.onnx"))
    for folder in ("set", "hr", "lr"):
        Path(folder).mkdir()
    for index, name in enumerate(("bird", "a_long_name")):
        high, low = Picture(noise(40, 44 + 2 * index, 3)), Picture(noise(20, 22 + index, 3))
        for path, picture in (
            (f"set/{name}_HR.png", high),
            (f"set/{name}_LR.png", low),
            (f"hr/{name}.png", high),
            (f"lr/{name}x2.png", low),
        ):
            write_picture(path, picture)


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        (["set"], ("set", None)),
        (["--hr", "hr", "--lr", "lr"], ("hr", "lr")),
        (["hr"], ("hr", None)),
        (["--hr", "hr"], ("hr", None)),
    ],
)
def test_json(arguments: list[str], folders: tuple[str, str | None], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *arguments, "--model", "model.onnx", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    document = json.loads(out)
    pairs = find_pairs(Path(folders[0]), folders[1] and Path(folders[1]))
    scores = list(evaluate(OnnxRuntimeSession("model.onnx"), pairs))
    assert (document["model"], document["session"], document["scale"]) == ("model.onnx", "onnxruntime", 2)
    assert document["pictures"] == [score.__dict__ for score in scores]
    mean = average(scores)
    assert document["average"] == {
        "name": "average",
        "psnr": mean.psnr,
        "ssim": mean.ssim,
        "bicubic_psnr": mean.bicubic_psnr,
        "bicubic_ssim": mean.bicubic_ssim,
    }


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "set", "--model", "model.onnx", "--tile", "64"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    mean = average(list(evaluate(OnnxRuntimeSession("model.onnx"), find_pairs(Path("set")))))
    lines = out.splitlines()
    assert lines[0] == "picture         PSNR    SSIM   bicubic PSNR  bicubic SSIM"
    assert [line.split()[0] for line in lines[1:]] == ["a_long_name", "bird", "average"]
    assert len({len(line) for line in lines}) == 1
    figures = [mean.psnr, mean.ssim, mean.bicubic_psnr, mean.bicubic_ssim]
    assert [float(text) for text in lines[-1].split()[1:]] == pytest.approx(figures, abs=6e-4)


def test_an_exact_result_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("flat").mkdir()
    write_picture("flat/black.png", Picture(noise(40, 40, 3) * 0))
    assert main(["evaluate", "flat", "--model", "model.onnx", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["average"]["psnr"] is None
    assert document["pictures"][0]["bicubic_psnr"] is None
    assert document["pictures"][0]["ssim"] == pytest.approx(1)


def test_several_sets_beside_what_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    Path("set").rename("Set5")
    Path("Urban100").mkdir()
    Path("hr").rename("Urban100/HR")
    command = ["evaluate", "Set5", "Urban100/HR", "lr", "--model", "model.onnx", "--compare"]
    assert main([*command, "--json"]) == 0
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert [each["folder"] for each in sets] == ["Set5", "Urban100/HR", "lr"]
    assert sets[0]["published"][0] == {"network": "SST-XL+ (DFLIP)", "psnr": 38.77, "ssim": 0.9636}
    assert len(sets[1]["published"]) == 5
    assert sets[2]["published"] == []
    assert main(["evaluate", "Set5", "--model", "model.onnx", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["average"] == sets[0]["average"]
    assert "folder" not in alone
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Set5:\npicture" in out
    assert "published: SST-L+ 35.63 dB\n" in out
    assert "published: nothing for x2 of a set called lr\n" in out


def test_without_originals(capsys: pytest.CaptureFixture[str]) -> None:
    """NIQE of what the model makes, which repeats pixels here, and of bicubic enlargement."""
    Path("real").mkdir()
    for i in range(2):
        write_picture(f"real/{i}.png", Picture(noise(96, 100 + i, 3)))
    assert main(["evaluate", "--lr", "real", "--model", "model.onnx", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in document["pictures"]] == ["0", "1"]
    assert 0 < document["average"]["bicubic_niqe"] < document["average"]["niqe"]
    assert main(["evaluate", "--lr", "real", "--model", "model.onnx"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("average")


def test_all_bad_pictures_are_named_and_the_others_measured(capsys: pytest.CaptureFixture[str]) -> None:
    Path("set/first_HR.png").write_bytes(b"no picture")
    Path("set/second_HR.png").write_bytes(b"no picture")
    for name in ("first", "second"):
        write_picture(f"set/{name}_LR.png", Picture(noise(20, 22, 3)))
    assert main(["evaluate", "set", "--model", "model.onnx"]) == 1
    out, err = capsys.readouterr()
    assert "2 pictures cannot be used: set/first_HR.png: is not a PNG" in err
    assert "; set/second_HR.png: is not a PNG" in err
    assert "a_long_name" in out
    assert "bird" in out


def test_all_bad_pictures_without_originals_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("real").mkdir()
    Path("real/a.png").write_bytes(b"no picture")
    write_picture("real/b.png", Picture(noise(20, 22, 3)))
    write_picture("real/c.png", Picture(noise(60, 64, 3)))
    assert main(["evaluate", "--lr", "real", "--model", "model.onnx"]) == 1
    out, err = capsys.readouterr()
    assert "2 pictures cannot be used: real/a.png: is not a PNG" in err
    assert "; real/b.png: NIQE needs pictures of at least 96x96 pixels, got 40x44" in err
    assert "\nc " in out
