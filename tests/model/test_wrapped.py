"""Checkpoints as other programs write them are taken, and what only looks like one is not."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from flashrib.model import UpsamplerConfig, load_model
from flashrib.model.checkpoint import save_safetensors
from flashrib.runtime.errors import CheckpointError
from tests.model.networks import SMALL, SMALL_ESC, same, small_network

State = Mapping[str, Tensor]


def below(prefix: str) -> Callable[[State, State], dict[str, Tensor]]:
    return lambda state, other: {f"{prefix}{key}": value for key, value in state.items()}


# How others write the state dict `state`, `other` being weights of the same keys that must not be taken.
FILES: dict[str, Callable[[State, State], dict[str, Any]]] = {
    "torch.compile": below("_orig_mod."),
    "compiled in DataParallel": below("module._orig_mod."),
    "DataParallel, compiled": below("_orig_mod.module."),
    "GAN, flat": lambda state, other: below("generator.")(state, other) | below("discriminator.")(other, state),
    "netG.": below("netG."),
    "net_g": lambda state, other: {"net_g": state, "iter": 7},
    "Lightning": lambda state, other: {"state_dict": below("model.")(state, other), "epoch": 3, "callbacks": {}},
    "Lightning, compiled GAN": lambda state, other: {
        "state_dict": below("generator._orig_mod.")(state, other) | below("loss.")(other, state)
    },
    "AveragedModel": lambda state, other: below("module.")(state, other) | {"n_averaged": torch.tensor(9)},
    "AveragedModel beside the last": lambda state, other: {
        "model": other,
        "ema": below("module.")(state, other) | {"n_averaged": torch.tensor(9)},
    },
    "averaged, with a dash": lambda state, other: {"params": other, "params-ema": state},
    "both flat": lambda state, other: below("params.")(other, state) | below("params_ema.")(state, other),
    "model_state_dict": lambda state, other: {"model_state_dict": state, "optimizer_state_dict": {"lr": 1e-3}},
    "nested twice": lambda state, other: {"state_dict": {"model": state}, "hyper_parameters": {"a": 1}},
    "weights": lambda state, other: {"weights": state},
}


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("config", [SMALL, SMALL_ESC], ids=["sst", "esc-rib"])
def test_files_of_others(name: str, config: Any, tmp_path: Path) -> None:
    network = small_network(config)
    state = network.state_dict()
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save(FILES[name](state, other), tmp_path / "x.pth")
    assert same(load_model(tmp_path / "x.pth", config=config), state)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "generator.", "params_ema.", "module.net_g."])
def test_safetensors_of_others(prefix: str, tmp_path: Path) -> None:
    state = small_network(SMALL).state_dict()
    save_file({f"{prefix}{key}": value for key, value in state.items()}, tmp_path / "x.safetensors")
    assert same(load_model(tmp_path / "x.safetensors", config=SMALL), state)


# Files in which the network is not found, or another one is meant, and its name.
NAMED: dict[str, tuple[str, Callable[[State, State], dict[str, Any]]]] = {
    "two of unknown names": ("gen_b", lambda state, other: {"gen_a": other, "gen_b": state, "step": 3}),
    "the weights of the last step": ("params", lambda state, other: {"params": state, "params_ema": other}),
    "deep": ("run.last.net", lambda state, other: {"run": {"best": {"net": other}, "last": {"net": state}}}),
    "prefix": ("up", lambda state, other: below("up.")(state, other) | below("down.")(other, state)),
    "dictionary, then prefix": ("state.a.b", lambda state, other: {"state": below("a.b.")(state, other)}),
    "a name with a dot": ("v1.0", lambda state, other: {"v1.0": state, "v0.9": other}),
    "further wrapping": ("task", lambda state, other: {"task": {"state_dict": below("module.")(state, other)}}),
}


@pytest.mark.parametrize("name", list(NAMED))
def test_key_names_the_network(name: str, tmp_path: Path) -> None:
    key, write = NAMED[name]
    state = small_network(SMALL).state_dict()
    torch.save(write(state, {key: torch.zeros_like(value) for key, value in state.items()}), tmp_path / "x.pth")
    assert same(load_model(tmp_path / "x.pth", config=SMALL, key=key), state)


def test_names_that_may_be_meant_are_told(tmp_path: Path) -> None:
    state = small_network(SMALL).state_dict()
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    path = tmp_path / "x.pth"
    torch.save({"gen_a": state, "more": {"gen_b": state}}, path)
    with pytest.raises(CheckpointError, match=r"not known: name it with --key: gen_a, more\.gen_b$"):
        load_model(path, config=SMALL)
    with pytest.raises(CheckpointError, match=r"nothing called 'gen_c' \(--key\): it holds 'gen_a', 'more.gen_b'$"):
        load_model(path, config=SMALL, key="gen_c")
    save_file(below("up.")(state, state) | below("down.")(other, other), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"pass it with --key: down, up$"):
        load_model(tmp_path / "x.safetensors", config=SMALL)
    assert same(load_model(tmp_path / "x.safetensors", config=SMALL, key="up"), state)


def test_recognition_stays_strict(tmp_path: Path) -> None:
    state = dict(small_network(SMALL).state_dict())
    missing = next(key for key in state if key.endswith("to_k"))
    del state[missing]
    torch.save({"state_dict": below("model.")(state, state)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=f"missing.*{missing}"):
        load_model(tmp_path / "x.pth", config=SMALL)


def test_an_integer_buffer_is_called_what_it_is(tmp_path: Path) -> None:
    state = small_network(SMALL).state_dict() | {"relative_position_index": torch.zeros(4, dtype=torch.int64)}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"tensor of torch\.int64 .*: no network of flashrib has such a tensor"):
        load_model(tmp_path / "x.pth", config=SMALL)
    torch.save(state | {"relative_position_index": torch.zeros(4, dtype=torch.int8)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="pass the checkpoint before quantization"):
        load_model(tmp_path / "x.pth", config=SMALL)


@pytest.mark.parametrize(
    "upsampler",
    [
        *(UpsamplerConfig("pixelshuffle", scale, 8) for scale in (1, 5, 8)),
        UpsamplerConfig("pixelshuffle_direct", 8),
        UpsamplerConfig("pixelshuffle_direct", 1),
        UpsamplerConfig("nn+conv", 1, 8),
        UpsamplerConfig("nn+conv", 8, 8),
    ],
    ids=lambda head: f"{head.kind} x{head.scale}",
)
def test_what_can_be_built_can_be_loaded(upsampler: UpsamplerConfig, tmp_path: Path) -> None:
    for config in (SMALL, SMALL_ESC, dataclasses.replace(SMALL_ESC, conv_blocks=0)):
        network = small_network(dataclasses.replace(config, upsampler=upsampler))
        save_safetensors(tmp_path / "x.safetensors", network)
        loaded = load_model(tmp_path / "x.safetensors")
        assert loaded.config == network.config
        assert same(loaded, network.state_dict())
