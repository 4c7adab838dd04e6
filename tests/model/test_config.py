"""The presets are the official configurations."""

import json
from typing import Any

import pytest

from flashrib.model import ESCConfig, SSTConfig, preset
from flashrib.model.architectures.registry import build_model, network_from_config
from flashrib.model.config import NetworkConfig
from flashrib.runtime.errors import UsageError
from tests.official import SHARED_GOLDEN, UPSCALERS, config_from_official

OFFICIAL_NAMES = {
    "sst-light": "SSTlight",
    "sst-light-plus": "SSTlight_Plus",
    "sst": "SST",
    "sst-plus": "SST_Plus",
    "sst-large": "SSTLarge",
    "sst-large-plus": "SSTLarge_Plus",
    "sst-xl-plus": "SSTXL_Plus",
    "esc-rib": "ESCRIB",
}
# x2, x3, x4
PARAMETERS = {
    "sst-light": (893_340, 899_835, 908_928),
    "sst-light-plus": (893_340, 899_835, 908_928),
    "sst": (11_676_707, 11_861_347, 12_119_843),
    "sst-plus": (11_676_707, 11_861_347, 12_119_843),
    "sst-large": (20_314_947, 20_730_147, 21_311_427),
    "sst-large-plus": (20_314_947, 20_730_147, 21_311_427),
    "sst-xl-plus": (33_892_195, 34_307_395, 34_888_675),
    "esc-rib": (1_007_796, 1_016_451, 1_028_568),
}
ALL = [(name, scale) for name in UPSCALERS for scale in (2, 3, 4)]


def shapes(config: NetworkConfig) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in network_from_config(config).state_dict().items()}


def manifest(name: str, scale: int) -> dict[str, Any]:
    path = SHARED_GOLDEN / "manifests" / f"{OFFICIAL_NAMES[name]}_X{scale}.json"
    if not path.exists():
        pytest.skip("the official manifests are not in ../shared/golden/sst/manifests")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize(("name", "scale"), ALL)
def test_number_of_parameters(name: str, scale: int) -> None:
    network = network_from_config(preset(name, scale))
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name][scale - 2]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "scale"), ALL)
def test_configuration_keys_and_shapes_are_the_official_ones(name: str, scale: int) -> None:
    official = manifest(name, scale)
    wanted = {key: shape for key, (shape, _) in official["state_dict"].items()}
    ours = shapes(preset(name, scale))
    assert list(ours.items()) == list(wanted.items())
    translated = config_from_official(official["type"], official["kwargs"])
    assert translated.windows == preset(name, scale).windows
    assert translated.ranks == preset(name, scale).ranks


@pytest.mark.parametrize(
    ("name", "alignment", "minimum"),
    [("sst-light", 64, 33), ("sst", 64, 33), ("sst-light-plus", 96, 49), ("sst-xl-plus", 96, 49), ("esc-rib", 64, 33)],
)
def test_alignment_and_minimum(name: str, alignment: int, minimum: int) -> None:
    config = preset(name)
    assert (config.alignment, config.minimum) == (alignment, minimum)


@pytest.mark.parametrize(
    ("windows", "shifted"),
    [
        (((8, 8),) * 4, (False, True, False, True)),
        (((8, 8), (16, 16), (8, 8)), (False, False, False)),
        (((8, 4), (4, 8)), (False, False)),
    ],
    ids=["equal", "cyclic", "rotated"],
)
def test_only_equal_windows_shift(windows: tuple[tuple[int, int], ...], shifted: tuple[bool, ...]) -> None:
    layers = len(windows)
    config = SSTConfig("sst-custom", 12, windows, heads=(2,) * layers, ranks=(3,) * layers, blocks=1, ffn_dim=18)
    assert config.shifted == shifted


@pytest.mark.parametrize(
    ("name", "scale", "says"),
    [
        ("sst-medium", 2, "unknown architecture 'sst-medium': choose one of sst-light"),
        ("sst", 5, "scale 5 is not one of 2, 3, 4"),
    ],
    ids=["name", "scale"],
)
def test_no_such_preset(name: str, scale: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build_model(name, scale)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"heads": (2, 2)}, "one entry per layer, got 1, 2 and 1"),
        ({"heads": (5,)}, r"divide dim = 12, got \(5,\)"),
        ({"windows": (), "heads": (), "ranks": ()}, "got 0, 0 and 0"),
    ],
    ids=["lengths", "heads", "no-layer"],
)
def test_configurations_that_cannot_be(values: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {"dim": 12, "windows": ((8, 8),), "heads": (2,), "ranks": (3,), "blocks": 1, "ffn_dim": 18}
    with pytest.raises(UsageError, match=says):
        SSTConfig("sst-custom", **(good | values))


def test_build_model_is_ready_to_run() -> None:
    network = build_model("esc-rib", scale=3)
    assert not network.training
    assert isinstance(network.config, ESCConfig)
    assert (network.config.name, network.config.scale) == ("esc-rib", 3)


def test_esc_heads_must_divide_the_dimension() -> None:
    with pytest.raises(UsageError, match="must divide dim = 64, got 5"):
        ESCConfig("esc-rib-custom", heads=5)
