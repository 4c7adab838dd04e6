"""Checkpoints -> networks and back: which architecture, which scale, and what is said about it."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from flashrib.model import UpsamplerConfig, build_model, preset
from flashrib.model.checkpoint import describe_checkpoint, load_model, save_safetensors, sha256_of
from flashrib.model.config import NetworkConfig
from flashrib.runtime.errors import CheckpointError, UsageError
from tests.model.networks import SMALL, SMALL_ESC, same, small_network
from tests.official import INTERPOLATIONS, load_vector, max_abs, seeded


def light_shapes() -> dict[str, Tensor]:
    return build_model("sst-light").state_dict()


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("light") / "net_g.pth"
    torch.save({"params_ema": light_shapes()}, path)
    return path


def test_plain_and_plus_are_never_guessed(light: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"sst-light or sst-light-plus, which differ in their windows alone.*--arch"
    ):
        load_model(light)


@pytest.mark.parametrize("arch", ["sst-light", "sst-light-plus"])
def test_arch_decides(arch: str, light: Path) -> None:
    network = load_model(light, arch=arch)
    assert network.config == preset(arch, 2)
    assert not network.training


@pytest.mark.parametrize(
    ("name", "arch"),
    [
        ("SSTlight_DFLIP_X2.pth", "sst-light"),
        ("SSTlight_Plus_DFLIP_X2.pth", "sst-light-plus"),
        ("sst-light-plus-x2.pth", "sst-light-plus"),
    ],
)
def test_file_name_decides(name: str, arch: str, light: Path, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(light)
    assert load_model(tmp_path / name).config == preset(arch, 2)
    assert load_model(tmp_path / name, arch="sst-light").config == preset(
        "sst-light", 2
    )  # said by the caller: stronger


@pytest.mark.parametrize(
    ("name", "arch", "says"),
    [
        (
            "x.pth",
            "sst-large",
            "contradict 'sst-large', which is what the argument says: dim 48 instead of 192, .* of sst-light or",
        ),
        ("x.pth", "esc-rib", "contradict 'esc-rib', .*: family sst instead of esc-rib;"),
        ("SST_DF2K_X2.pth", None, "contradict 'sst', which is what its file name says: dim 48 instead of 180"),
        ("SSTlight_DFLIP_X3.pth", None, "its file name says x3, its shapes say x2"),
    ],
    ids=["arch-size", "arch-family", "name-size", "name-scale"],
)
def test_contradictions_say_both(name: str, arch: str | None, says: str, light: Path, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(light)
    with pytest.raises(CheckpointError, match=says):
        load_model(tmp_path / name, arch=arch)


def test_a_sole_candidate_is_taken(tmp_path: Path) -> None:
    torch.save(build_model("esc-rib", 4).state_dict(), tmp_path / "anything.pth")
    assert load_model(tmp_path / "anything.pth").config == preset("esc-rib", 4)


def test_other_sizes_need_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(small_network().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"no preset has its sizes, .* the 2 windows .* config="):
        load_model(path)
    with pytest.raises(
        CheckpointError, match=r"contradict the configuration passed: ranks \(3, 5\) instead of \(3, 6\)$"
    ):
        load_model(path, config=dataclasses.replace(SMALL, ranks=(3, 6)))
    assert load_model(path, config=SMALL).config == SMALL


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"arch": "sst-tiny"}, "unknown architecture 'sst-tiny': choose one of sst-light"),
        ({"scale": 8}, "scale 8 is not one of 2, 3, 4"),
        ({"arch": "sst", "config": SMALL}, "either arch"),
        ({"scale": 3, "config": SMALL}, "scale 3 contradicts the configuration's scale 2"),
    ],
    ids=["arch", "scale", "both", "config-scale"],
)
def test_arguments_that_cannot_be_meant(arguments: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        load_model(tmp_path / "not-even-looked-at.pth", **arguments)


@pytest.mark.parametrize(
    "config",
    [SMALL, SMALL_ESC, *(dataclasses.replace(SMALL, upsampler=UpsamplerConfig("nn+conv", r, 7)) for r in (2, 3, 4))],
    ids=["sst", "esc-rib", "nn+conv-x2", "nn+conv-x3", "nn+conv-x4"],
)
def test_round_trip_of_any_network_needs_no_hint(config: NetworkConfig, tmp_path: Path) -> None:
    network = small_network(config)
    save_safetensors(tmp_path / "x.safetensors", network, {"flashrib.steps": "500000"})
    loaded = load_model(tmp_path / "x.safetensors")
    assert loaded.config == config
    assert same(loaded, dict(network.state_dict()))
    picture = torch.rand(1, 3, 9, 11, generator=seeded(1))
    with torch.no_grad():
        assert torch.equal(loaded(picture), network(picture))
    assert list(tmp_path.iterdir()) == [tmp_path / "x.safetensors"]


def test_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, build_model("sst-light-plus", 3), {"note": "mine", "flashrib.scale": "9"})
    with safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert header["note"] == "mine"
    assert header["flashrib.architecture"] == "sst-light-plus"
    assert header["flashrib.scale"] == "3"
    assert json.loads(header["flashrib.windows"])[5] == [96, 96]
    # The header is stronger than the name, which anybody may change.
    os.rename(path, tmp_path / "sst-light-x2.safetensors")
    assert load_model(tmp_path / "sst-light-x2.safetensors").config == preset("sst-light-plus", 3)


@pytest.mark.parametrize(
    ("header", "arch", "says"),
    [
        ({}, "sst-light-plus", "its header says that it is 'sst-light', the argument says 'sst-light-plus'"),
        (
            {"flashrib.architecture": "sst"},
            None,
            "contradict 'sst', which is what its header says: dim 48 instead of 180",
        ),
        ({"flashrib.scale": "3"}, None, "its header says x3, its shapes say x2"),
        ({"flashrib.scale": "two"}, None, "its header says xtwo, its shapes say x2"),
        ({"flashrib.windows": "[[8, 8]]"}, None, "not a list of 6 windows"),
        ({"flashrib.windows": "[[8, 1e400]]"}, None, "not a list of 6 windows"),
        ({"flashrib.windows": "[[8, 8"}, None, "not a list of 6 windows"),
        ({"flashrib.windows": "[8, 8, 8, 8, 8, 8]"}, None, "not a list of 6 windows"),
        ({"flashrib.windows": json.dumps([[8, 10**9]] * 6)}, None, "not a list of 6 windows"),
        ({"flashrib.windows": json.dumps([[8, 8]] * 6)}, None, "says 'sst-light', but also windows"),
        ({"flashrib.architecture": "sst-medium"}, None, "this may be sst-light or sst-light-plus"),
    ],
)
def test_headers_that_contradict(header: dict[str, str], arch: str | None, says: str, tmp_path: Path) -> None:
    good = {"flashrib.architecture": "sst-light", "flashrib.scale": "2"}
    save_file(light_shapes(), tmp_path / "x.safetensors", good | header)
    with pytest.raises(CheckpointError, match=says):
        load_model(tmp_path / "x.safetensors", arch=arch)


def test_saving_replaces_the_file_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, small_network(seed=1))
    before = path.read_bytes()

    def interrupted(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_safetensors(path, small_network(seed=2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_where_nothing_can_be_saved(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "x.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be written: "):
            save_safetensors(path, small_network())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_interpolation_is_the_official_one(name: str, tmp_path: Path) -> None:
    vector = load_vector(name)
    torch.save({"params_ema": vector.state_dict}, tmp_path / "x.pth")
    network = load_model(tmp_path / "x.pth", config=vector.config)
    assert network.config == vector.config
    state_dict = network.state_dict()
    for key in ("up_conv.weight", "up_conv.bias"):
        assert max_abs(state_dict[f"upsampler.{key}"], vector.tensors[f"interp.{key}"]) <= 2e-6
    with torch.no_grad():
        assert max_abs(network(vector.tensors["input"]), vector.tensors["output"]) <= 1e-4


@pytest.mark.parametrize(("arch", "source", "target"), [("sst-light", 2, 4), ("esc-rib", 4, 3)])
def test_scale_of_presets(arch: str, source: int, target: int, tmp_path: Path) -> None:
    path = tmp_path / f"{arch}-x{source}.safetensors"
    save_safetensors(path, build_model(arch, source))
    assert load_model(path).config.scale == source
    network = load_model(path, scale=target)
    assert network.config == preset(arch, target)
    assert network.state_dict()["upsampler.up_conv.weight"].shape[0] == 3 * target**2


def test_x2_and_x3_of_the_head_nn_conv_look_alike(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, upsampler=UpsamplerConfig("nn+conv", 3, 7))
    path = tmp_path / "x.safetensors"
    about = {"flashrib.architecture": "sst-custom", "flashrib.windows": json.dumps(SMALL.windows)}
    save_file(small_network(config).state_dict(), path, about)
    assert describe_checkpoint(path)["scale"] is None
    with pytest.raises(CheckpointError, match="x2 and x3 look alike with its head nn\\+conv: pass --scale"):
        load_model(path)
    assert load_model(path, scale=3).config == config
    assert load_model(path, config=config).config == config
    save_file(small_network(config).state_dict(), path, about | {"flashrib.scale": "3"})
    assert load_model(path).config == config
    for scale in (2, 4):
        with pytest.raises(CheckpointError, match=f"nn\\+conv trained for x3 cannot be resized to x{scale}"):
            load_model(path, scale=scale)


@pytest.mark.parametrize("config", [SMALL, SMALL_ESC], ids=["sst", "esc-rib"])
def test_gradients_reach_every_parameter(config: NetworkConfig, tmp_path: Path) -> None:
    save_safetensors(tmp_path / "x.safetensors", small_network(config))
    network = load_model(tmp_path / "x.safetensors")
    assert not network.training
    network(torch.rand(2, 3, 9, 11, generator=seeded(3))).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_training_in_place_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, small_network())
    before = sha256_of(path)
    network = load_model(path)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert sha256_of(path) == before


def test_describe_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, build_model("sst-light-plus", 4))
    about = describe_checkpoint(path)
    assert json.loads(json.dumps(about)) == about
    assert about == {
        "file": str(path),
        "family": "sst",
        "architecture": "sst-light-plus",
        "candidates": ["sst-light", "sst-light-plus"],
        "scale": 4,
        "windows": [[side, side] for side in (16, 32, 48, 32, 48, 96)],
        "ranks": [16, 16, 16, 24, 24, 24],
        "heads": [3] * 6,
        "dim": 48,
        "blocks": 5,
        "gate": "DWC",
        "upsampler": "pixelshuffle_direct",
        "parameters": 908_928,
        "alignment": 96,
        "minimum": 49,
        "whole_picture": False,
        "dtype": "float32",
        "sha256": sha256_of(path),
    }


def test_describe_says_what_it_does_not_know(light: Path) -> None:
    about = describe_checkpoint(light)
    assert about["candidates"] == ["sst-light", "sst-light-plus"]
    assert [about[key] for key in ("architecture", "windows", "alignment", "minimum")] == [None] * 4
    assert about["scale"] == 2
    assert describe_checkpoint(light, arch="sst-light")["alignment"] == 64


def test_describe_esc(tmp_path: Path) -> None:
    torch.save(build_model("esc-rib").state_dict(), tmp_path / "x.pth")
    about = describe_checkpoint(tmp_path / "x.pth")
    assert (about["architecture"], about["heads"], about["ranks"]) == ("esc-rib", [4], [16])
    assert (about["windows"], about["whole_picture"]) == ([[64, 64]], True)


def test_one_flipped_bit_of_our_own_files_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, small_network())
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    for position in (start, (start + len(content)) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="its weights are not those that it was written with: it is damaged"):
            load_model(path)


def test_files_of_before_and_of_others_are_not_checked(tmp_path: Path) -> None:
    network = small_network()
    save_safetensors(tmp_path / "x.safetensors", network)
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        header = file.metadata()
    half = {key: value.half() for key, value in network.state_dict().items()}
    save_file(half, tmp_path / "converted.safetensors", header)  # another type: the hash is about something else
    load_model(tmp_path / "converted.safetensors")
    del header["flashrib.weights_sha256"]
    save_file(dict(network.state_dict()), tmp_path / "old.safetensors", header)
    load_model(tmp_path / "old.safetensors")
