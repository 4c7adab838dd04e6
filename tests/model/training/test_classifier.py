"""`flashrib train` of a classifier: a run on a few pictures, finetuning of a plain ViT, and configurations that are refused."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from flashrib.model.architectures.fibottention_vit.config import FibottentionConfig
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.model.training.classifier import is_classifier, read_classifier_config, train_classifier
from flashrib.model.training.classify import FitOptions, begin, fit
from flashrib.model.training.log import LOG
from flashrib.model.training.state import LOCK, STATE
from flashrib.runtime.artifacts.lock import locked
from flashrib.runtime.cli import main
from flashrib.runtime.errors import CheckpointError, FlashribError, UsageError

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
    written = weights.read_bytes()
    assert main(["train", str(config), "-o", str(folder / "run"), "--device", "cpu"]) == 0  # the run is over
    assert weights.read_bytes() == written
    (folder / "run" / "state.pth").unlink()
    assert main(["train", str(config), "-o", str(folder / "run")]) == 2
    assert "holds trained weights already" in capsys.readouterr().err


def test_resumed_run_equals_uninterrupted_one(folder: Path) -> None:
    config = read_classifier_config(config_file(folder, GOOD))
    for name in ("whole", "parts"):
        (folder / name).mkdir()
    whole = load_file(train_classifier(config, folder / "whole", device="cpu"))
    for epoch in range(1, 5):
        parts = load_file(train_classifier(config, folder / "parts", device="cpu", minutes=0))
        state = torch.load(folder / "parts" / STATE, weights_only=True)
        assert state["step"] == 4 * epoch  # 24 pictures in batches of 6
        assert all(torch.equal(whole[key], parts[key]) for key in whole) == (epoch == 4)
    logs = [list(csv.DictReader((folder / name / LOG).read_text().splitlines())) for name in ("whole", "parts")]
    untimed = [[{**row, "seconds": ""} for row in log] for log in logs]
    assert untimed[0] == untimed[1]
    assert [row["epoch"] for row in logs[1]] == ["1", "2", "3", "4"]


def test_row_of_an_epoch_that_was_not_saved_is_written_anew(folder: Path) -> None:
    config = read_classifier_config(config_file(folder, GOOD))
    run = folder / "run"
    run.mkdir()
    train_classifier(config, run, device="cpu", minutes=0)
    with (run / LOG).open("a") as log:
        log.write("2,9.9,0.0,1.0\r\n")
    train_classifier(config, run, device="cpu", minutes=0)
    rows = list(csv.DictReader((run / LOG).read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["loss"]) < 9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("lr = 3e-3\nema = 0.5", "lr = 1e-3\nema = 0.6"), "a run with another ema, lr"),
        (('"zero_logit"', '"neg_inf"'), "a run with another network"),
        (("batch = 6", "batch = 7"), "a run with another batch"),
    ],
)
def test_other_configuration_is_refused(folder: Path, change: tuple[str, str], words: str) -> None:
    run = folder / "run"
    run.mkdir()
    train_classifier(read_classifier_config(config_file(folder, GOOD)), run, device="cpu", minutes=0)
    changed = read_classifier_config(config_file(folder, GOOD.replace(*change, 1)))
    with pytest.raises(UsageError) as refused:
        train_classifier(changed, run, device="cpu")
    assert all(word in str(refused.value) for word in words.replace(",", "").split())
    (folder / "data" / "dark" / "0.png").unlink()
    with pytest.raises(UsageError, match="a run with another pictures"):
        train_classifier(read_classifier_config(config_file(folder, GOOD)), run, device="cpu")


def test_damaged_state_and_a_second_training_are_refused(folder: Path) -> None:
    config = read_classifier_config(config_file(folder, GOOD))
    run = folder / "run"
    run.mkdir()
    with locked(run / LOCK, "the folder"), pytest.raises(FlashribError, match="written by another process"):
        train_classifier(config, run, device="cpu")
    (run / STATE).write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="delete it to start again"):
        train_classifier(config, run, device="cpu")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("data =", "dta ="), "unknown field(s) dta"),
        (('data = "data"', ""), "field data is missing"),
        (("epochs = 4", "epochs = 0"), "epochs = 0 is out of range"),
        (("lr = 3e-3", "lr = inf"), "lr = inf is out of range"),
        (("epochs = 4", "epochs = 4\nseed = 9223372036854775808"), "seed = 9223372036854775808 is out of range"),
        (("lr = 3e-3", 'lr = "fast"'), "must be of type float"),
        (('start = "plain.safetensors"', ""), "either arch"),
        (('start = "plain.safetensors"', 'key = "a"\narch = "fibottention-tiny-16"'), "name the file with start"),
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
        options = FitOptions(epochs=1, warmup=0, shift=2, batch=4)
        state = begin(network_from_config(PLAIN), options)
        assert len(list(fit(state, pictures, labels, options))) == 1
        with state.averaged():
            results.append(state.network.state_dict()["head.weight"].clone())
    assert torch.equal(*results)


def test_divergence_is_an_error() -> None:
    network = network_from_config(PLAIN)
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    with pytest.raises(FlashribError, match="diverged"):
        next(fit(begin(network, FitOptions()), torch.zeros(4, 3, 16, 16).byte(), torch.zeros(4).long(), FitOptions()))
