"""SST-Real checkpoints: recognised, refused, written and read again."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from flashrib.model import build_model, describe_checkpoint, load_model, preset, save_safetensors
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.architectures.sst_real.config import SSTRealConfig
from flashrib.runtime.errors import CheckpointError, UsageError
from tests.places import SHARED

SMALL = SSTRealConfig(
    "sst-real-custom",
    dim=8,
    windows=((4, 4), (8, 8)),
    heads=(2, 4),
    ranks=(3, 5),
    blocks=2,
    ffn_dim=16,
    intermediate_dim=4,
    emb_channels=10,
    noise_channels=6,
    fuse_till=0,
    guide_block=0,
    rib_hidden=6,
    guidance=3.0,
    pad_to=16,
)


def test_round_trip(tmp_path: Path) -> None:
    """The header of our own file has everything that shapes do not tell."""
    network = network_from_config(SMALL).eval()
    save_safetensors(tmp_path / "a.safetensors", network)
    again = load_model(tmp_path / "a.safetensors")
    assert again.config == SMALL
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    about = describe_checkpoint(tmp_path / "a.safetensors")
    assert (about["family"], about["scale"], about["alignment"], about["minimum"]) == ("sst-real", 4, 16, 9)


def test_official_file_needs_no_hints(tmp_path: Path) -> None:
    """Only the sizes count, so tensors without content stand for the 55 million parameters."""
    with torch.device("meta"):
        network = build_model("sst-real", 4)
    assert sum(p.numel() for p in network.parameters()) == 54_986_502
    assert network.config.alignment == 64
    assert network.config.minimum == 33


@pytest.mark.shared
def test_keys_are_the_official_ones() -> None:
    manifest = json.loads((SHARED / "golden" / "sst" / "manifests" / "SSTReal_X4.json").read_text())["state_dict"]
    with torch.device("meta"):
        ours = build_model("sst-real", 4).state_dict()
    assert list(ours) == list(manifest)
    assert all(list(value.shape) == list(manifest[key][0]) for key, value in ours.items())


def test_what_shapes_do_not_tell_must_be_said(tmp_path: Path) -> None:
    network = network_from_config(SMALL)
    torch.save(network.state_dict(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"no preset has its sizes.*pass load_model\(path, config=...\)"):
        load_model(tmp_path / "a.pth")
    assert load_model(tmp_path / "a.pth", config=SMALL).config == SMALL
    wrong = dataclasses.replace(SMALL, ranks=(3, 6), fuse_till=1)
    with pytest.raises(CheckpointError, match=r"ranks \(3, 5\) instead of \(3, 6\), fuse_till 0 instead of 1"):
        load_model(tmp_path / "a.pth", config=wrong)
    with pytest.raises(CheckpointError, match="magnifies by 4 only"):
        load_model(tmp_path / "a.pth", scale=2)
    assert describe_checkpoint(tmp_path / "a.pth")["windows"] is None


def test_damaged_header(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = network_from_config(SMALL)
    save_file(network.state_dict(), tmp_path / "a.safetensors", {"flashrib.config": '{"name": "x"}'})
    with pytest.raises(CheckpointError, match=r"header's flashrib.config is damaged"):
        load_model(tmp_path / "a.safetensors")


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="guide_block must be one of the 2 blocks, got 2"):
        dataclasses.replace(SMALL, guide_block=2)
    with pytest.raises(UsageError, match="one entry per layer"):
        dataclasses.replace(SMALL, heads=(2,))
    with pytest.raises(UsageError, match="scale 2 is not one of 4"):
        preset("sst-real", 2)
