"""Multiply-adds by hand for a small network, and the official counts of the presets."""

import dataclasses
import json

import pytest

from flashrib.model import SSTConfig, preset
from flashrib.model.config import UpsamplerConfig, UpscalerConfig
from flashrib.model.macs import count_macs
from tests.official import SHARED_GOLDEN

OFFICIAL = {"SSTlight_Plus_X2": ("sst-light-plus", 2), "SST_X3": ("sst", 3), "ESCRIB_X4": ("esc-rib", 4)}


def test_by_hand() -> None:
    config = SSTConfig(
        "sst-custom", 12, ((4, 6),), heads=(3,), ranks=(5,), blocks=2, ffn_dim=18, gate="Linear",
        upsampler=UpsamplerConfig("pixelshuffle_direct", 2),
    )  # fmt: skip
    pixels = 7 * 13
    qkv, out, gate, ffn = 12 * 36, 12 * 12, 12 * 12, 12 * 18 + 9 * 18 + 18 * 12
    block = qkv + out + gate + ffn + 9 * 12 * 12
    convolutions = pixels * (9 * 3 * 12 + 2 * block + 9 * 12 * 12 + 9 * 12 * 12)
    attention = 2 * (8 * 18) * (4 * 6) * 3 * (4 + 5 + 4)  # 7x13 padded to windows of 4x6
    assert count_macs(config, 7, 13) == {
        "total": convolutions + attention,
        "convolutions": convolutions,
        "attention": attention,
    }
    double = dataclasses.replace(config, blocks=4)
    assert count_macs(double, 7, 13)["attention"] == 2 * attention


@pytest.mark.shared
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_counts(name: str) -> None:
    path = SHARED_GOLDEN / "flops.json"
    if not path.exists():
        pytest.skip("the official counts are not in ../shared/golden/sst")
    counts = json.loads(path.read_text())[name]
    config = preset(*OFFICIAL[name])
    assert isinstance(config, UpscalerConfig)
    for wanted in (counts.get("HD_pipeline", counts["HD"]), counts["64x64"]):
        height, width = wanted["input"]
        # the official code pads before qkv, ours inside the operator
        qkv = height * width * 3 * config.dim**2 * len(config.attentions) * config.blocks
        assert count_macs(config, height, width)["total"] == wanted["need"] - wanted["qkv"] + qkv


def test_sst_real_takes_noise_of_the_size_that_belongs_to_the_picture() -> None:
    total = count_macs(preset("sst-real", 4), 180, 320)["total"]
    assert total == count_macs(preset("sst-real", 4), 192, 320)["total"]  # it pads to multiples of 64
    assert 7.44e12 < total < 9e12  # 7.44 without the widened v
