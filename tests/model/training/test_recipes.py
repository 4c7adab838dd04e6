"""The recipes of docs/recipes are read, and are what the official code trains with."""

import tomllib
from pathlib import Path

import pytest

from flashrib.model import PRESETS, preset
from flashrib.model.config import UpscalerConfig
from flashrib.model.training.config import read_config
from flashrib.model.training.optimizer import learning_rate
from tests.places import ROOT

RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.toml"))


def test_there_is_one_for_each_preset_that_the_official_code_trains() -> None:
    trained = {tomllib.loads(path.read_text())["arch"] for path in RECIPES}
    assert trained == {name for name in PRESETS if name.startswith("sst")}


@pytest.mark.parametrize("path", [path for path in RECIPES if "real" not in path.stem], ids=lambda path: path.stem)
def test_official_values(path: Path) -> None:
    config = read_config(path)
    network = preset(config.arch, config.scale)
    assert isinstance(network, UpscalerConfig)
    assert config.patch == network.alignment  # 64, and 96 of Plus: whole windows
    rates = [learning_rate(step, config) for step in (0, 19_999, 249_999, 250_000, 400_000, 450_000, 475_000, 499_999)]
    assert rates == pytest.approx([5e-4 / 20_000, 5e-4, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5, 3.125e-5, 1.5625e-5])
    assert (config.optimizer, config.betas, config.weight_decay, config.clip) == ("adamw", (0.9, 0.9), 0.0, 0.0)
    assert (config.ema, config.ema_warmup, config.steps) == (0.999, False, 500_000)


def test_official_values_of_sst_real() -> None:
    config = read_config(ROOT / "docs" / "recipes" / "sst-real-x4.toml")
    rates = [learning_rate(step, config) for step in (0, 9_999, 10_000, 399_999)]
    assert rates == pytest.approx([1e-8, 1e-4, 1e-4, 1e-4])
    assert (config.optimizer, config.betas, config.weight_decay, config.clip) == ("adamw", (0.9, 0.99), 2e-4, 0.0)
    assert (config.ema, config.ema_warmup, config.steps, config.noise_steps) == (0.999, False, 400_000, (4, 3))
    assert (config.patch, config.batch * config.accumulate, config.precision) == (128, 40, "bf16")
    assert config.degradation == "sst-real"
