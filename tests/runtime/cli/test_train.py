"""`flashrib train`: the command alone; the training itself has its own tests."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import flashrib.model.training.loop as loop
from flashrib.runtime.cli import main
from tests.model.networks import small_network
from tests.runtime.picture_files import noise

CONFIG = "data = ['.']\nvalidation = 1\nbatch = 1\npatch = 8\nsteps = 2\nwarmup = 0\n"


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.toml").write_text(CONFIG)


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ([], {"device": "auto", "minutes": float("inf")}),
        (["--device", "cpu", "--minutes", "2.5"], {"device": "cpu", "minutes": 2.5}),
    ],
)
def test_what_is_passed_on(
    options: list[str], passed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    def train(config: Any, folder: Path, **arguments: Any) -> Path:
        seen.update(arguments, steps=config.steps)
        return folder / "weights.safetensors"

    monkeypatch.setattr(loop, "train", train)
    assert main(["train", "run.toml", "-o", "a/run", *options]) == 0
    assert seen == passed | {"steps": 2}
    assert capsys.readouterr() == ("a/run/weights.safetensors\n", "")


def test_a_network_that_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, str]] = []

    def load(path: str, arch: str, scale: int, *, key: str) -> Any:
        seen.append((path, key))
        return small_network()

    monkeypatch.setattr(loop, "load_model", load)
    Path("run.toml").write_text(CONFIG.replace("steps = 2", "steps = 1"))
    for name in ("a", "b"):
        Image.fromarray(noise(48, 40, 3)).save(f"{name}.png")
    assert main(["train", "run.toml", "-o", "run", "--device", "cpu", "--start", "odd.pth", "--key", "a.b"]) == 0
    assert seen == [("odd.pth", "a.b")]
    capsys.readouterr()
    assert main(["train", "run.toml", "-o", "other", "--key", "a.b"]) == 2
    assert "name the file with start or --start" in capsys.readouterr().err


def test_a_run_that_goes_on_says_that_it_does_not_start_anew(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "train", lambda config, folder, **arguments: folder / "weights.safetensors")
    command = ["train", "run.toml", "-o", "run", "--start", "x2"]
    assert main(command) == 0
    assert capsys.readouterr().err == ""
    Path("run").mkdir(exist_ok=True)
    Path("run/state.pth").touch()
    assert main(command) == 0
    assert capsys.readouterr().err == "flashrib: note: run: goes on from its own state, not from x2\n"


@pytest.mark.parametrize("there", [True, False])
def test_an_interruption_keeps_what_was_saved(
    there: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(config: Any, folder: Path, **arguments: Any) -> Path:
        if there:
            (folder / "state.pth").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "train", train)
    assert main(["train", "run.toml", "-o", "a/run"]) == 130
    assert capsys.readouterr().err == "flashrib: interrupted\n"
    assert Path("a/run/state.pth").exists() is there
    assert Path("a").exists() is there


@pytest.mark.slow
def test_a_training_and_its_continuation(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "build_model", lambda arch, scale: small_network())
    for name in ("a", "b"):
        Image.fromarray(noise(48, 40, 3)).save(f"{name}.png")
    arguments = ["train", "run.toml", "-o", "run", "--device", "cpu"]
    assert main([*arguments, "--minutes", "0.0001"]) == 0
    assert {path.name for path in Path("run").iterdir()} == {".training.lock", "state.pth", "weights.safetensors"}
    assert main(arguments) == 0
    assert capsys.readouterr().out == "run/weights.safetensors\n" * 2
    assert Path("run/log.csv").read_text().splitlines()[1].startswith("2,")
    assert main(["info", "run/weights.safetensors"]) == 0
    assert "sst-custom" in capsys.readouterr().out
    Path("run.toml").write_text(CONFIG + "lr = 1e-4\n")
    assert main(arguments) == 2
    assert "run: holds a run with another lr" in capsys.readouterr().err
