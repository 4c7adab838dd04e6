"""Checkpoints of ViTs: what shapes tell is read, what they do not tell must be stated."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from flashrib.model.architectures.fibottention_vit.config import FACTS, FibottentionConfig
from flashrib.model.architectures.fibottention_vit.recognise import resize_positions
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import describe_checkpoint, load_model, save_safetensors
from flashrib.runtime.errors import CheckpointError

SMALL = FibottentionConfig(
    "fibottention-custom",
    24,
    2,
    3,
    patch=2,
    grid=5,
    classes=7,
    mask_mode="zero_logit",
    order="depth0",
    mean=(0.5, 0.5, 0.5),
)
STATED: dict[str, Any] = {fact: getattr(SMALL, fact) for fact in FACTS} | {"mean": [0.5, 0.5, 0.5]}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A checkpoint as the official code writes it, with a record of options."""
    path = tmp_path / "checkpoint-99.pth"
    network = network_from_config(SMALL)
    options = argparse.Namespace(model="vit_tiny", input_size=10, cls_token=True)
    optimizer = torch.optim.AdamW(network.parameters())
    content = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 99,
        "scaler": {},
        "args": options,
    }
    torch.save(content, path)
    return path


def state(path: Path, **changes: Any) -> None:
    values = {name: value for name, value in (STATED | changes).items() if value is not None}
    path.with_suffix(".json").write_text(json.dumps(values))


def test_header_says_everything(tmp_path: Path) -> None:
    path = tmp_path / "vit.safetensors"
    network = network_from_config(SMALL)
    save_safetensors(path, network)
    again = load_model(path)
    assert again.config == SMALL
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), network.parameters(), strict=True))


def test_nothing_is_guessed(official: Path) -> None:
    with pytest.raises(CheckpointError, match=r"do not tell heads, mask_mode.*checkpoint-99\.json"):
        load_model(official)
    about = describe_checkpoint(official)
    assert about["mask_mode"] is None
    assert (about["dim"], about["depth"], about["classes"], about["size"]) == (24, 2, 7, 10)


def test_statement_beside_the_checkpoint(official: Path) -> None:
    state(official)
    assert load_model(official).config == SMALL
    assert describe_checkpoint(official)["order"] == "depth0"


def test_configuration_passed(official: Path) -> None:
    assert load_model(official, config=SMALL).config == SMALL
    with pytest.raises(CheckpointError, match="depth = 3, its shapes say 2"):
        load_model(official, config=dataclasses.replace(SMALL, depth=3))


@pytest.mark.parametrize("fact", FACTS)
def test_every_fact_must_be_stated(official: Path, fact: str) -> None:
    state(official, **{fact: None})
    with pytest.raises(CheckpointError, match=f"does not state {fact}"):
        load_model(official)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_mode": "soft"}, "mask_mode 'soft' is not one of"),
        ({"heads": 5}, "must divide dim"),
        ({"heads": "3"}, "heads is '3'"),
        ({"spped": "full"}, "'spped'"),
        ({"size": 11}, "no multiple of the patches' 2 pixels"),
        ({"mean": [1, 2]}, "three numbers"),
        ({"std": ["a", 1, 1]}, "could not convert"),
    ],
)
def test_wrong_statements(official: Path, changes: dict[str, Any], words: str) -> None:
    state(official, **changes)
    with pytest.raises(CheckpointError, match=words):
        load_model(official)


@pytest.mark.parametrize("text", ["[]", "{", '"zero_logit"'])
def test_statement_that_is_no_object(official: Path, text: str) -> None:
    official.with_suffix(".json").write_text(text)
    with pytest.raises(CheckpointError, match="JSON"):
        load_model(official)


def test_another_size_is_stated_and_interpolates_the_positions(official: Path) -> None:
    state(official, size=14)
    network = load_model(official)
    assert network.config == dataclasses.replace(SMALL, grid=7)
    positions = torch.load(official, weights_only=False)["model"]["pos_embed"]
    assert torch.equal(network.state_dict()["pos_embed"], resize_positions(positions, 7))
    assert torch.equal(network.state_dict()["pos_embed"][:, 0], positions[:, 0])


@pytest.mark.parametrize(
    ("key", "shape", "words"),
    [
        ("pos_embed", (1, 25, 24), "class token and the patches of a square"),
        ("patch_embed.proj.weight", (24, 3, 2, 3), "2x3"),
        ("blocks.1.mlp.fc2.bias", None, "missing"),
        ("blocks.0.attn.mask", (1,), "unexpected"),
        ("blocks.0.norm1.weight", (25,), "misshapen"),
    ],
)
def test_other_keys_are_refused(tmp_path: Path, key: str, shape: tuple[int, ...] | None, words: str) -> None:
    weights = dict(network_from_config(SMALL).state_dict())
    if shape is None:
        del weights[key]
    else:
        weights[key] = torch.zeros(shape)
    torch.save(weights, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match=words):
        load_model(tmp_path / "vit.pth")


def test_other_classes_in_a_pickle_are_still_refused(tmp_path: Path) -> None:
    class Options(argparse.Namespace):
        pass

    globals()["Options"] = Options
    Options.__qualname__ = "Options"
    torch.save({"model": {"a": torch.zeros(1)}, "args": Options()}, tmp_path / "vit.pth")
    with pytest.raises(CheckpointError, match="refused, because a pickle can run code"):
        load_model(tmp_path / "vit.pth")
