"""FLUX's weights in shards with a CLEAR file over them; checkpoints through the table of architectures."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from flashrib.model import load_model, save_safetensors
from flashrib.model.architectures.clear_dit.config import ClearConfig, overlay_shapes
from flashrib.model.architectures.clear_dit.load import INDEX, load_clear
from flashrib.model.checkpoint import describe_checkpoint
from flashrib.runtime.errors import CheckpointError
from tests.model.architectures.clear_dit.cases import inputs, network, tiny
from tests.official import max_abs

AXES = (4, 6, 6)


def write_flux(folder: Path, config: ClearConfig) -> dict[str, torch.Tensor]:
    """Two shards and an index, without what CLEAR adds."""
    weights = {key: value for key, value in network(config).state_dict().items() if "spatial" not in key}
    names = sorted(weights)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: weights[key] for key in keys}, folder / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (folder / INDEX).write_text(json.dumps(index))
    return weights


def write_clear(path: Path, config: ClearConfig) -> dict[str, torch.Tensor]:
    weights = {key: torch.randn(shape) * 0.1 for key, shape in overlay_shapes(config).items()}
    save_file(weights, path)
    return weights


@pytest.mark.parametrize("down", [0, 4])
def test_overlay(tmp_path: Path, down: int) -> None:
    config = tiny(3, down)
    flux, clear = write_flux(tmp_path, config), write_clear(tmp_path / "clear.safetensors", config)
    loaded = load_clear(
        tmp_path, tmp_path / "clear.safetensors", 3, dtype=torch.float32, axes=AXES, text=5, proportional=True
    )
    assert loaded.config == tiny(3, down, proportional=True)
    expected = flux | clear
    assert {key: value.shape for key, value in loaded.state_dict().items()} == {k: v.shape for k, v in expected.items()}
    assert all(torch.equal(value, expected[key]) for key, value in loaded.state_dict().items())
    half = load_clear(tmp_path / INDEX, None, None, axes=AXES)
    assert half.proj_out.weight.dtype == torch.bfloat16
    assert half.config.radius is None


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen", "nan"])
def test_overlay_must_have_exactly_its_names(tmp_path: Path, change: str) -> None:
    config = tiny(3)
    write_flux(tmp_path, config)
    weights = write_clear(tmp_path / "clear.safetensors", config)
    key = "transformer_blocks.0.attn.to_q.weight"
    if change == "missing":
        del weights[key]
    elif change == "unexpected":
        weights["transformer_blocks.0.attn.add_q_proj.weight"] = weights[key]
    elif change == "misshapen":
        weights[key] = weights[key][:4]
    else:
        weights[key][0, 0] = torch.nan
    save_file({k: v.contiguous().clone() for k, v in weights.items()}, tmp_path / "clear.safetensors")
    with pytest.raises(CheckpointError, match="finite" if change == "nan" else f"1 {change}"):
        load_clear(tmp_path, tmp_path / "clear.safetensors", 3, axes=AXES)


@pytest.mark.parametrize(
    ("damage", "says"),
    [("no-files", "neither .* nor"), ("shard", "b.safetensors is missing beside it"), ("index", "not an index")],
)
def test_files_that_cannot_be_read(tmp_path: Path, damage: str, says: str) -> None:
    if damage != "no-files":
        write_flux(tmp_path, tiny())
    if damage == "shard":
        (tmp_path / "b.safetensors").unlink()
    if damage == "index":
        (tmp_path / INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match=says):
        load_clear(tmp_path, None, None)


def test_through_the_table_of_architectures(tmp_path: Path) -> None:
    """Our own files say the radius; others must be told, and one with a published name is believed."""
    config = tiny(3, 4)
    transformer = network(config)
    save_safetensors(tmp_path / "own.safetensors", transformer)
    loaded = load_model(tmp_path / "own.safetensors")
    assert loaded.config == config
    given = inputs(config, 8, 8)
    assert max_abs(loaded.reference(*given), transformer(*given)) == 0
    save_file(transformer.state_dict(), tmp_path / "unknown.safetensors")
    with pytest.raises(CheckpointError, match="the radius of CLEAR's attention is in no key"):
        load_model(tmp_path / "unknown.safetensors")
    assert load_model(tmp_path / "unknown.safetensors", config=config).config == config
    with pytest.raises(CheckpointError, match="its shapes say"):
        load_model(tmp_path / "unknown.safetensors", arch="clear-local-8-down-4")
    about = describe_checkpoint(tmp_path / "unknown.safetensors")
    assert about["family"] == "clear"
    assert about["radius"] is None
    assert about["candidates"] == ["clear-local-8-down-4", "clear-local-16-down-4"]
