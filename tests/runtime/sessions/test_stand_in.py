"""ONNX files without metadata: what the user says of them stands in, where the file bears it out."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from flashrib.runtime.artifacts.bundled import bundled_model
from flashrib.runtime.cli import main
from flashrib.runtime.errors import FlashribError, ModelError, UsageError
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.quality.parity import verify
from flashrib.runtime.sessions.table import choose_exact_session, describe_model, open_session
from tests.runtime.models import write_onnx
from tests.runtime.picture_files import noise


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A file that repeats every pixel twice and says nothing about itself."""
    return write_onnx(tmp_path / "bare.onnx", metadata={})


def test_a_session_takes_what_the_user_says(bare: Path) -> None:
    with open_session(bare, arch="sst-light", scale=2, device="cpu") as session:
        info = session.info
        assert (info.architecture, info.scale, info.alignment, info.opset) == ("sst-light", 2, 64, 18)
        assert info.parameters == 0  # unknown
        pixels = np.random.default_rng(0).random((1, 3, 40, 50), np.float32)
        np.testing.assert_array_equal(session.run(pixels), pixels.repeat(2, 2).repeat(2, 3))
    about = describe_model(bare, "sst-light", 2)
    assert (about["architecture"], about["scale"], about["windows"][0]) == ("sst-light", 2, (8, 8))
    assert choose_exact_session(bare, "sst-light", 2) == "onnxruntime"


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({}, ModelError, r"says nothing about itself .* or say with --arch and --scale what it is$"),
        ({"scale": 2}, ModelError, "says nothing about itself"),
        ({"arch": "sst-light"}, UsageError, "with --arch sst-light, --scale is needed as well$"),
        ({"arch": "sst-light", "scale": 3}, ModelError, "makes 66x66 pixels of 33x33, so it is no sst-light x3"),
        ({"arch": "sst-tiny", "scale": 2}, UsageError, "unknown architecture 'sst-tiny'"),
        ({"arch": "sst-light", "scale": 9}, UsageError, "scale 9 is not one of 2, 3, 4"),
        ({"arch": "fibottention-tiny-16"}, UsageError, "--arch fibottention-tiny-16 cannot stand in"),
        ({"arch": "sst-real"}, FlashribError, "one input|inputs"),
    ],
    ids=["nothing", "scale", "arch", "wrong-scale", "unknown", "no-scale", "classifier", "noise"],
)
def test_what_the_file_does_not_bear_out_is_refused(
    bare: Path, options: dict[str, object], kind: type[FlashribError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        open_session(bare, device="cpu", **options)


def test_windows_in_the_file_decide(tmp_path: Path) -> None:
    model = onnx.load(bundled_model())
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    assert describe_model(tmp_path / "bare.onnx", "sst-light", 2)["alignment"] == 64
    with pytest.raises(
        ModelError, match="its attention has windows of 8x8, 16x16, 32x32, 64x64, so it is no sst-light-plus"
    ):
        describe_model(tmp_path / "bare.onnx", "sst-light-plus", 2)


def test_metadata_of_which_a_part_is_left_are_not_completed(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", metadata={"flashrib.scale": "2"})
    with pytest.raises(ModelError, match=r"'flashrib.architecture' is missing"):
        open_session(path, arch="sst-light", scale=2, device="cpu")


def test_files_that_speak_are_not_overruled(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="its scale is 2, not 3"):
        open_session(path, arch="sst-light", scale=3, device="cpu")
    with pytest.raises(UsageError, match=r"--key ema: .* only checkpoints hold networks under names"):
        open_session(path, key="ema", device="cpu")


def test_commands(bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(bare.parent)
    pixels = noise(40, 50, 3)
    write_picture("in.png", Picture(pixels))
    hints = ["--arch", "sst-light", "--scale", "2"]
    assert main(["upscale", "in.png", "-o", "out.png", "--model", "bare.onnx", *hints]) == 0
    np.testing.assert_array_equal(read_picture("out.png").pixels, pixels.repeat(2, 0).repeat(2, 1))
    write_onnx(Path("whole.onnx"))
    assert main(["verify", "whole.onnx", "bare.onnx", *hints]) == 0
    assert main(["info", "bare.onnx", *hints]) == 0
    assert "parameters" in capsys.readouterr().out
    assert verify(Path("whole.onnx"), [bare]).artifacts[0].failure is not None  # nobody says what it is
