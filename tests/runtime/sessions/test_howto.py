"""docs/howto/add-a-session.md is true: its example, added from outside, is upscaled with, described and verified."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from flashrib.runtime.artifacts.kinds import FILES
from flashrib.runtime.cli import main
from flashrib.runtime.errors import SessionError
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.table import SESSIONS
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise

PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "add-a-session.md"


@pytest.fixture(autouse=True)
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example of the page, and a model file of its kind."""
    monkeypatch.chdir(tmp_path)
    Path("x2.toy").write_text('{"repeat": 2}')
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    with mock.patch.dict(FILES), mock.patch.dict(SESSIONS):
        exec(compile(example, str(PAGE), "exec"), {"__name__": "toy"})
        yield


def test_it_upscales(capsys: pytest.CaptureFixture[str]) -> None:
    pixels = noise(70, 90, 3)
    write_picture("small.png", Picture(pixels))
    command = ["upscale", "small.png", "-o", "large.png", "--model", "x2.toy", "--tile", "32", "--halo", "0"]
    assert main([*command, "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["session"], about["pictures"][0]["tiles"]) == ("toy", 9)
    np.testing.assert_array_equal(read_picture("large.png").pixels, pixels.repeat(2, axis=0).repeat(2, axis=1))


def test_it_is_described_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "x2.toy", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["format"], about["architecture"], about["scale"]) == ("toy", "toy", 2)
    write_onnx(Path("reference.onnx"))
    assert main(["verify", "reference.onnx", "x2.toy"]) == 0
    Path("x3.toy").write_text('{"repeat": 3}')
    assert main(["verify", "reference.onnx", "x3.toy"]) == 1
    assert "x3.toy: upscales by 3, but the reference reference.onnx by 2" in capsys.readouterr().err


def test_it_follows_the_protocol_and_closes() -> None:
    with SessionSpec("x2.toy").open() as session:
        assert isinstance(session, Session)
    with pytest.raises(SessionError, match="closed"):
        session.run(np.zeros((1, 3, 4, 4), np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cuda-graph"], "--cuda-graph: x2.toy is a toy, and only engines run as CUDA graphs: leave it out"),
        (["--device", "cuda"], "--device cuda: x2.toy runs on the CPU: leave it out"),
        (["--precision", "fp16"], "--precision fp16: x2.toy is a toy and has its own: leave it out"),
        (["--session", "torch"], "x2.toy: is a toy, which a session of the kind 'torch' cannot run: use --session toy"),
        (["--scale", "3"], "x2.toy: its scale is 2, not 3"),
    ],
)
def test_what_it_does_not_take_is_refused(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture("small.png", Picture(noise(10, 10, 3)))
    assert main(["upscale", "small.png", "-o", "large.png", "--model", "x2.toy", *options]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not Path("large.png").exists()
