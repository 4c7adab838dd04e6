"""The recipes of docs/recipes are read, and are what the official code trains with."""

import tomllib

import pytest

from flashrib.model import PRESETS, preset
from flashrib.model.config import UpscalerConfig
from flashrib.model.training.config import read_config
from flashrib.model.training.optimizer import learning_rate
from tests.places import ROOT

RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.toml"))


def test_there_is_one_for_each_preset_that_the_official_code_trains() -> None:
    trained = {tomllib.loads(path.read_text())["arch"] for path in RECIPES}
    assert trained == {name for name in PRESETS if name.startswith("sst") and name != "sst-real"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_official_values(path: object) -> None:
    config = read_config(path)
    network = preset(config.arch, config.scale)
    assert isinstance(network, UpscalerConfig)
    assert config.patch == network.alignment  # 64, and 96 of Plus: whole windows
    rates = [learning_rate(step, config) for step in (0, 19_999, 249_999, 250_000, 400_000, 450_000, 475_000, 499_999)]
    assert rates == pytest.approx([5e-4 / 20_000, 5e-4, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5, 3.125e-5, 1.5625e-5])
    assert (config.optimizer, config.betas, config.weight_decay, config.clip) == ("adamw", (0.9, 0.9), 0.0, 0.0)
    assert (config.ema, config.ema_warmup, config.steps) == (0.999, False, 500_000)
