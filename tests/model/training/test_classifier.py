"""`flashrib train` of a classifier: a run on a few pictures, finetuning of a plain ViT, and configurations that are refused."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flashrib.model.architectures.fibottention_vit.config import FibottentionConfig
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.model.training.classifier import is_classifier, read_classifier_config
from flashrib.model.training.classify import FitOptions, fit
from flashrib.runtime.cli import main
from flashrib.runtime.errors import FlashribError

PLAIN = FibottentionConfig("fibottention-custom", 24, 2, 3, patch=4, grid=4, classes=5, mask_mode="dense")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, dark and bright pictures, and a plain ViT for five."""
    random = np.random.default_rng(0)
    for name, low in (("bright", 150), ("dark", 0)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(12):
            pixels = random.integers(low, low + 100, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{index}.png")
    torch.manual_seed(0)
    save_safetensors(tmp_path / "plain.safetensors", network_from_config(PLAIN))
    return tmp_path


def config_file(folder: Path, text: str) -> Path:
    path = folder / "train.toml"
    path.write_text('task = "classify"\n' + text)
    return path


GOOD = """data = "data"
validation = "data"
start = "plain.safetensors"
epochs = 4
batch = 6
lr = 3e-3
ema = 0.5
shift = 1
flip = true
[network]
mask_mode = "zero_logit"
order = "none"
"""


def test_a_plain_vit_is_finetuned(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_file(folder, GOOD)
    assert main(["train", str(config), "-o", str(folder / "run"), "--device", "cpu"]) == 0
    weights = Path(capsys.readouterr().out.strip())
    trained = load_model(weights)
    assert trained.config == dataclasses.replace(PLAIN, classes=2, mask_mode="zero_logit", order="none")
    rows = list(csv.DictReader((folder / "run" / "log.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert float(rows[-1]["validation"]) == 1.0
    assert main(["train", str(config), "-o", str(folder / "run")]) == 2
    assert "holds trained weights already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("data =", "dta ="), "unknown field(s) dta"),
        (('data = "data"', ""), "field data is missing"),
        (("epochs = 4", "epochs = 0"), "epochs = 0 is out of range"),
        (("lr = 3e-3", 'lr = "fast"'), "must be of type float"),
        (('start = "plain.safetensors"', ""), "either arch"),
        (('start = "plain.safetensors"', 'arch = "sst"'), "none of fibottention"),
        (("order =", "ordre ="), "ordre"),
        (('"none"', '"any"'), "order 'any' is not one of"),
        (("[network]", "[network]\ndim = 48"), "another shape"),
        (('data = "data"', 'data = "nothing"'), "cannot be read"),
    ],
)
def test_refused(folder: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], words: str) -> None:
    config = config_file(folder, GOOD.replace(*change, 1))
    assert main(["train", str(config), "-o", str(folder / "run")]) in (1, 2)
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (folder / "run").exists()


def test_what_is_no_classifier(folder: Path) -> None:
    (folder / "other.toml").write_text('data = ["x"]\n')
    assert not is_classifier(folder / "other.toml")
    assert not is_classifier(folder / "missing.toml")
    path = config_file(folder, 'data = "x"\narch = "fibottention-tiny-16"\n')
    assert is_classifier(path)
    assert read_classifier_config(path).fit == FitOptions()


def test_the_same_seed_gives_the_same_weights() -> None:
    pictures = torch.randint(0, 256, (10, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    labels = torch.arange(10) % 5
    results = []
    for _ in range(2):
        torch.manual_seed(1)
        (_, trained), *_ = fit(
            network_from_config(PLAIN), pictures, labels, FitOptions(epochs=1, warmup=0, shift=2, batch=4)
        )
        results.append(trained.state_dict()["head.weight"])
    assert torch.equal(*results)


def test_divergence_is_an_error() -> None:
    network = network_from_config(PLAIN)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(FlashribError, match="diverged"):
        next(iter(fit(network, torch.zeros(4, 3, 16, 16).byte(), torch.zeros(4).long(), FitOptions())))
