"""Keys and shapes -> architecture, sizes, candidates; and which key is wrong where they do not fit."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flashrib.model import ESCConfig, SSTConfig, preset
from flashrib.model.architectures.recognise import recognise as recognise_checkpoint
from flashrib.model.architectures.registry import name_of, network_from_config, preset_from_file_name
from flashrib.model.architectures.upscaler import RecognisedUpscaler
from flashrib.model.config import Gate, NetworkConfig, UpsamplerConfig, UpsamplerType, UpscalerConfig
from flashrib.model.state_dict import Checkpoint
from flashrib.runtime.errors import CheckpointError
from tests.model.test_config import ALL, manifest
from tests.official import UPSCALERS

PAIRS = (("sst-light", "sst-light-plus"), ("sst", "sst-plus"), ("sst-large", "sst-large-plus"))


def alike(name: str) -> tuple[str, ...]:
    return next((pair for pair in PAIRS if name in pair), (name,))


def recognise(state_dict: dict[str, Tensor]) -> RecognisedUpscaler:
    recognised = recognise_checkpoint(Checkpoint(Path("x.pth"), state_dict))
    assert isinstance(recognised, RecognisedUpscaler)
    return recognised


def state_dict_of(config: NetworkConfig) -> dict[str, Tensor]:
    return network_from_config(config).state_dict()


def small_sst() -> dict[str, Tensor]:
    return state_dict_of(SSTConfig("", 12, ((4, 4), (8, 8)), heads=(3, 2), ranks=(3, 5), blocks=2, ffn_dim=18))


def random_config(seed: int) -> UpscalerConfig:
    """A small configuration with every size drawn at random."""
    draw = random.Random(seed)
    kinds: tuple[UpsamplerType, ...] = ("pixelshuffle_direct", "pixelshuffle", "nn+conv")
    gates: tuple[Gate, ...] = (None, "Linear", "DWC")
    kind = draw.choice(kinds)
    channels = 64 if kind == "pixelshuffle_direct" else draw.randint(1, 9)
    head = UpsamplerConfig(kind, draw.randint(2, 4), channels)
    sizes = {"ffn_dim": draw.randint(1, 30), "rib_hidden": draw.randint(1, 9), "rib_freqs": draw.randint(0, 11)}
    dim = 12 * draw.randint(1, 3)
    if draw.random() < 0.5:
        layers = draw.choice((1, 2, 6, 12))
        return SSTConfig(
            "sst-custom",
            dim=dim,
            windows=tuple((draw.randint(1, 9), draw.randint(1, 9)) for _ in range(layers)),
            heads=tuple(draw.choice((1, 2, 3, 4, 6)) for _ in range(layers)),
            ranks=tuple(draw.randint(1, 9) for _ in range(layers)),
            blocks=draw.choice((1, 2, 11)),
            upsampler=head,
            gate=draw.choice(gates),
            **sizes,
        )
    return ESCConfig(
        "esc-rib-custom",
        dim=dim,
        pdim=draw.randint(2, 8),
        kernel_size=draw.choice((3, 5, 13)),
        blocks=draw.choice((1, 2, 11)),
        conv_blocks=draw.choice((1, 2, 11)),
        window=(draw.randint(1, 9), draw.randint(1, 9)),
        heads=draw.choice((1, 2, 3, 4, 6)),
        rank=draw.randint(1, 9),
        upsampler=head,
        gate=draw.choice(gates),
        use_ln=draw.random() < 0.5,
        **sizes,
    )


@pytest.mark.parametrize(("name", "scale"), [(name, 2 + index % 3) for index, name in enumerate(UPSCALERS)])
def test_presets(name: str, scale: int) -> None:
    config = preset(name, scale)
    recognised = recognise(state_dict_of(config))
    assert recognised.scales == (scale,)
    assert recognised.candidates == alike(name)
    assert recognised.config(name, config.windows, scale) == config


@pytest.mark.shared
@pytest.mark.parametrize(("name", "scale"), ALL)
def test_official_manifests(name: str, scale: int) -> None:
    shapes = manifest(name, scale)["state_dict"].items()
    state_dict = {key: torch.empty(shape) for key, (shape, _) in shapes}
    assert recognise(state_dict).candidates == alike(name)
    assert recognise(state_dict).scales == (scale,)


@pytest.mark.parametrize("seed", range(30))
def test_random_sizes_are_read_back(seed: int) -> None:
    config = random_config(seed)
    recognised = recognise(state_dict_of(config))
    assert config.scale in recognised.scales
    assert len(recognised.scales) == (2 if config.upsampler.kind == "nn+conv" and config.scale < 4 else 1)
    assert recognised.config(config.name, config.windows, config.scale) == config
    assert recognised.candidates == ()


def test_name_of_a_configuration() -> None:
    light = preset("sst-light", 3)
    assert isinstance(light, SSTConfig)
    assert name_of(light) == "sst-light"
    assert name_of(SSTConfig("sst-light", 48, ((8, 8),) * 6, (3,) * 6, light.ranks, 5, 72)) == "sst-custom"
    assert name_of(ESCConfig("esc-rib", window=(32, 32))) == "esc-rib-custom"


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        ("SSTlight_DFLIP_X2.pth", ("sst-light", 2)),
        ("SSTlight_Plus_DIV2K_X4.pth", ("sst-light-plus", 4)),
        ("SST_DF2K_X3.pth", ("sst", 3)),
        ("SST_Plus_DF2K_X4.pth", ("sst-plus", 4)),
        ("SSTLarge_DFLIP_X2.pth", ("sst-large", 2)),
        ("SSTLarge_Plus_DF2K_X2.pth", ("sst-large-plus", 2)),
        ("SSTXL_Plus_DFLIP_X4.pth", ("sst-xl-plus", 4)),
        ("ESCRIB_DFLIP_X3.pth", ("esc-rib", 3)),
        ("sstlight_plus_dflip_x2.PTH", ("sst-light-plus", 2)),
        ("SST_DF2K_X2 (1).pth", ("sst", 2)),
        ("sst-light-x2.safetensors", ("sst-light", 2)),
        ("sst-xl-plus-x4.safetensors", ("sst-xl-plus", 4)),
        ("esc-rib-x3.safetensors", ("esc-rib", 3)),
        ("SSTXL_DFLIP_X4.pth", None),
        ("SSTReal_X4.pth", ("sst-real", 4)),
        ("SSTReal_X2.pth", None),
        ("SSTlight_X5.pth", None),
        ("SSTlight.pth", None),
        ("my-sst-light-x2.pth", None),
        ("sst-light-x2-plus-windows.pth", None),
        ("net_g_latest.pth", None),
    ],
)
def test_file_names(file: str, wanted: tuple[str, int] | None) -> None:
    assert preset_from_file_name(Path("some") / "SSTlight_DFLIP_X2" / file) == wanted


def without(*keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in small_sst().items() if key not in keys}


def with_shape(key: str, *shape: int) -> dict[str, Tensor]:
    state_dict = small_sst()
    assert key in state_dict
    return state_dict | {key: torch.empty(shape)}


WRONG = {
    "other-architecture": (
        {f"layers.{i}.weight": torch.empty(1) for i in range(12)},
        "keys of no architecture that flashrib knows .*: 'layers.0.weight', .*'layers.9.weight' and 2 more",
    ),
    "no-keys": ({}, "keys of no architecture"),
    "sst-real": (
        {"model.map_noise.mlp.0.weight": torch.empty(1)},
        "missing keys of an SST-Real network: 'model.proj_in.weight'",
    ),
    "missing": (without("body.1.1.ffn.agg.bias"), "1 missing: 'body.1.1.ffn.agg.bias'$"),
    "missing-many": (
        {key: value for key, value in small_sst().items() if ".norm" not in key},
        "16 missing: 'body.0.0.norm_attn.weight', .*'body.1.0.norm_attn.bias' and 6 more$",
    ),
    "missing-input": (without("proj.weight"), "missing keys of an SST network: 'proj.weight'$"),
    "missing-head": (
        without("upsampler.up_conv.weight"),
        "missing keys of an SST network: 'upsampler.up_conv.weight'$",
    ),
    "missing-layer": (
        {key.replace("body.0.1.", "body.0.4."): value for key, value in small_sst().items()},
        "missing keys of an SST network: 'body.0.1.attn.to_q', 'body.0.2.attn.to_q', 'body.0.3.attn.to_q'$",
    ),
    "unexpected": (small_sst() | {"extra.weight": torch.empty(1)}, "1 unexpected: 'extra.weight'$"),
    "misshapen": (
        with_shape("body.1.0.attn.to_qkv.weight", 36, 12, 3, 3),
        r"1 misshapen: 'body.1.0.attn.to_qkv.weight' \(36, 12, 3, 3\) instead of \(36, 12, 1, 1\)$",
    ),
    "all-three": (
        without("proj.bias") | {"a": torch.empty(1), "body.2.weight": torch.empty(13)},
        r"1 missing: 'proj.bias'; 1 unexpected: 'a'; 1 misshapen: 'body.2.weight' \(13,\) instead of \(12,\)$",
    ),
    "axes": (with_shape("proj.weight", 12, 3), r"'proj.weight' has the shape \(12, 3\), which no SST network has"),
    "zero-size": (with_shape("body.0.0.attn.to_q", 0, 8, 3), r"'body.0.0.attn.to_q' has the shape \(0, 8, 3\)"),
    "absurd-size": (with_shape("proj.weight", 10**6, 1, 1, 1), r"'proj.weight' has the shape \(1000000, 1, 1, 1\)"),
    "heads": (with_shape("body.0.0.attn.to_q", 5, 32, 3), "no SST network has 5 heads .* for 12 channels"),
    "features": (with_shape("body.0.0.attn.to_hidden", 41, 32), "no SST network has 41 coordinate features"),
    "scale-9": (
        with_shape("upsampler.up_conv.weight", 243, 12, 3, 3),
        "243 channels in upsampler.up_conv: expected 3 times",
    ),
    "scale-1.4": (
        with_shape("upsampler.up_conv.weight", 6, 12, 3, 3),
        "6 channels in upsampler.up_conv: expected 3 times",
    ),
    "esc-without-rib": (
        {"plk_filter": torch.empty(16, 16, 13, 13), "proj.weight": torch.empty(64, 3, 3, 3)},
        "missing keys of an ESC-RIB network: 'blocks.0.attn.to_q'",
    ),
    "esc-pdim": (
        state_dict_of(ESCConfig("", blocks=1)) | {"plk_filter": torch.empty(65, 65, 13, 13)},
        r"no ESC-RIB network has 65 channels in the large-kernel convolution \(plk_filter\) out of 64",
    ),
    "esc-even-kernel": (
        state_dict_of(ESCConfig("", blocks=1)) | {"plk_filter": torch.empty(16, 16, 12, 12)},
        r"no ESC-RIB network has a kernel of even side 12 \(plk_filter\)",
    ),
}


@pytest.mark.parametrize(("state_dict", "says"), WRONG.values(), ids=WRONG)
def test_keys_that_do_not_fit(state_dict: dict[str, Tensor], says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        recognise(state_dict)
    assert str(caught.value).startswith("x.pth: ")
    assert "\n" not in str(caught.value)
