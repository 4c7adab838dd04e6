"""`flashrib classify`, and `flashrib evaluate` of classifiers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.runtime.artifacts.bundled import bundled_model
from flashrib.runtime.cli import main
from tests.places import ROOT

pytest.importorskip("sklearn", reason="scikit-learn, which has the pictures, is not installed")

DIGITS = str(ROOT / "tests" / "golden" / "fibottention_digits.safetensors")
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three test pictures of each digit in a folder of its name; they are 18 pixels, so the middle of them is cut out."""
    from benchmarks.digits import digits

    root = tmp_path_factory.mktemp("digits")
    _, _, pictures, labels = digits()
    for label in range(10):
        (root / str(label)).mkdir()
        for index in (labels == label).nonzero()[:3, 0].tolist():
            pixels = np.pad(pictures[index].numpy().transpose(1, 2, 0), ((1, 1), (1, 1), (0, 0)))
            Image.fromarray(pixels).save(root / str(label) / f"{index}.png")
    return root


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_classes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "names.txt"
    labels.write_text("\n".join(NAMES) + "\n")
    code, out, _ = called(
        capsys, "classify", str(folder / "7"), "--model", DIGITS, "--labels", str(labels), "--top", "2", "--json"
    )
    assert code == 0
    document = json.loads(out)
    assert document["session"] == "torch"
    assert len(document["pictures"]) == 3
    for entry in document["pictures"]:
        first, second = entry["classes"]
        assert (first["class"], first["label"]) == (7, "seven")
        assert 1 >= first["probability"] > second["probability"] > 0


def test_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = next((folder / "3").iterdir())
    code, out, err = called(capsys, "classify", str(picture), "--model", DIGITS, "--top", "1")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{picture}:"
    assert out.split()[-1] == "3"


def test_evaluate_folder_and_csv(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "evaluate", str(folder), "--model", DIGITS, "--json")
    assert code == 0
    by_folder = json.loads(out)
    assert by_folder["pictures"] == 30
    assert by_folder["top1"] >= 0.9
    assert by_folder["top5"] >= by_folder["top1"]
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "label"])
        writer.writerows([path, path.parent.name] for path in sorted(folder.rglob("*.png")))
    code, out, _ = called(capsys, "evaluate", str(table), "--model", DIGITS, "--json")
    assert code == 0
    assert json.loads(out) == by_folder
    code, out, _ = called(capsys, "evaluate", str(table), "--model", DIGITS)
    assert out.startswith("30 pictures: top-1 ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["classify", "{picture}"], 2, "--model"),
        (["classify", "{picture}", "--model", "{upscaler}"], 2, "use flashrib upscale"),
        (["upscale", "{picture}", "--model", DIGITS, "-o", "{new}.png"], 2, "use flashrib classify"),
        (["classify", "{missing}", "--model", DIGITS], 1, "missing.png"),
        (["classify", "{picture}", "--model", DIGITS, "--labels", "{short}"], 2, "holds 2 names, but the model has 10"),
        (["classify", "{picture}", "--model", DIGITS, "--labels", "{missing}"], 2, "cannot be read as names"),
        (["evaluate", "{picture}", "--model", DIGITS], 1, "cannot be read as a CSV"),
        (["evaluate", "{empty}", "--model", DIGITS], 1, "one for every class"),
        (["evaluate", "{letters}", "--model", DIGITS], 2, "label 'x'"),
        (["evaluate", "{many}", "--model", DIGITS], 2, "of class 99, but the model has 10"),
        (["evaluate", "{columns}", "--model", DIGITS], 1, "columns picture and label"),
    ],
)
def test_bad_input(
    arguments: list[str], code: int, words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next((folder / "1").iterdir())
    texts = {
        "short": "a\nb\n",
        "letters": f"picture,label\n{picture},x\n",
        "many": f"picture,label\n{picture},99\n",
        "columns": "file,class\na,1\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "empty").mkdir()
    places = {name: str(tmp_path / name) for name in (*texts, "empty", "new")}
    places |= {"picture": str(picture), "missing": str(tmp_path / "missing.png")}
    places |= {"upscaler": str(bundled_model())}
    seen, out, err = called(capsys, *(argument.format(**places) for argument in arguments))
    assert (seen, out) == (code, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_all_bad_pictures_are_named_and_the_others_classified(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [tmp_path / "a.png", tmp_path / "b.png"]
    for path in bad:
        path.write_bytes(b"no picture")
    picture = next((folder / "1").iterdir())
    code, out, err = called(capsys, "classify", str(bad[0]), str(picture), str(bad[1]), "--model", DIGITS)
    assert code == 1
    assert out.startswith(f"{picture}:")
    assert f"2 pictures cannot be used: {bad[0]}: is not" in err
    assert f"; {bad[1]}: is not" in err
