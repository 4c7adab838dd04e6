"""The command `flashrib video`, with a network that repeats every pixel."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from flashrib.runtime.cli import main
from flashrib.runtime.cli.video import seconds
from tests.runtime.models import write_onnx
from tests.runtime.video.videos import VARIABLE, write_video

av = pytest.importorskip("av")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_onnx(Path("model.onnx"))
    write_video(Path("in.mkv"))


def test_a_whole_video(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["video", "in.mkv", "-o", "out.mkv", "--model", "model.onnx"]) == 0
    assert capsys.readouterr().out == f"in.mkv -> out.mkv (128x96, yuv420p, {len(VARIABLE)} frames)\n"
    with av.open("out.mkv") as container:
        assert [frame.width for frame in container.decode(video=0)] == [128] * len(VARIABLE)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["video", "in.mkv", "-o", "out.mkv", "--model", "model.onnx", "--json", "--preview", "0.3"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["frames"], document["width"], document["upscaled"]) == (5, 256, 5)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["missing.mkv", "-o", "out.mkv"], 1, "missing.mkv: cannot be read as a video: No such file"),
        (["in.mkv", "-o", "out.unknown"], 1, "out.unknown"),
        (["in.mkv", "-o", "out.webm", "--codec", "h264"], 1, "not every container holds every codec"),
        (["in.mkv", "-o", "in.mkv"], 2, "exists: use --overwrite"),
        (["in.mkv", "-o", "in.mkv", "--overwrite"], 2, "is the input itself"),
        (["in.mkv", "-o", "nowhere/out.mkv"], 1, "nowhere"),
        (["in.mkv", "-o", "."], 2, ".: is a folder"),
        (["in.mkv", "-o", "out.mkv", "--start", "soon"], 2, "neither seconds"),
        (["in.mkv", "-o", "out.mkv", "--preview", "--end", "3"], 2, "exclude each other"),
        (["-", "-o", "out.mkv"], 2, "standard input"),
        (["in.mkv", "-o", "-", "--json"], 2, "both want standard output"),
    ],
)
def test_one_line_says_what_is_wrong(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path("in.mkv").read_bytes()
    assert main(["video", *arguments, "--model", "model.onnx"]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flashrib: error: ")
    assert says in line
    assert Path("in.mkv").read_bytes() == before
    assert not Path("out.mkv").exists()
    assert not list(Path().glob("**/*.tmp"))


@pytest.mark.parametrize(("text", "value"), [("90", 90), ("1:30.5", Fraction(181, 2)), ("1:01:01", 3661)])
def test_times(text: str, value: Fraction) -> None:
    assert seconds(text) == value
