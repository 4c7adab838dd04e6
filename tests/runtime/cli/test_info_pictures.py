"""`flashrib info --pictures` draws what the heads see."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flashrib.export.to_file import export_file
from flashrib.model.architectures.fibottention_vit.draw import GAP, SEEN, pictures
from flashrib.model.attention.fibonacci.offsets import head_offsets, pack_offsets, support
from flashrib.runtime.artifacts.bundled import bundled_model
from flashrib.runtime.cli import main
from tests.model.architectures.fibottention_vit.test_recognise import SMALL
from tests.places import ROOT

DIGITS = ROOT / "tests" / "golden" / "fibottention_digits.safetensors"


def test_checkpoint_and_file_give_the_same_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from flashrib.model.checkpoint import load_model

    export_file(load_model(DIGITS), tmp_path / "digits.onnx")
    for model, folder in ((DIGITS, "a"), (tmp_path / "digits.onnx", "b")):
        assert main(["info", str(model), "--pictures", str(tmp_path / folder), "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["pictures"]) == 4
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        with Image.open(path) as image:
            assert image.mode == "RGB"


def test_every_kept_pair_is_drawn() -> None:
    name, drawn = next(iter(pictures(SMALL)))
    assert name == "layer-00.png"
    offsets = pack_offsets(head_offsets(25, 3, 0, "depth0"), 25)
    zoom = 160 // 26
    for head, kept in enumerate(support(offsets, 26).numpy()):
        left = GAP + head * (26 * zoom + 2 * GAP)
        map_of_head = drawn[GAP : GAP + 26 * zoom : zoom, left : left + 26 * zoom : zoom]
        assert np.array_equal((map_of_head == SEEN).all(-1), kept)


def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bundled_model()
    assert main(["info", str(file), "--pictures", str(tmp_path / "new")]) == 2
    assert "pass a Fibottention model, or the checkpoint of a network with RIB" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_bias_of_the_bundled_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--pictures", str(tmp_path / "new"), "--json"]) == 0
    names = json.loads(capsys.readouterr().out)["pictures"]
    assert sorted(names) == sorted(str(path) for path in (tmp_path / "new").iterdir())
    assert len(names) == 30  # five blocks of six layers
