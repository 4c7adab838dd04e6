"""Tiny networks of CLEAR, and the official one."""

import json

import torch
from safetensors.torch import load_file
from torch import Tensor

from flashrib.model.architectures.clear_dit.config import ClearConfig
from flashrib.model.architectures.clear_dit.network import ClearTransformer
from tests.official import seeded
from tests.places import SHARED

OFFICIAL = SHARED / "golden" / "clear" / "clear_flux_tiny_16x24"
VARIANTS = [
    f"{kind}{suffix}" for kind in ("dense", "r4", "r8", "r4_down4", "r8_down4") for suffix in ("", "_prop_ntk10")
]


def tiny(radius: int | None = 3, down: int = 0, **facts: object) -> ClearConfig:
    """1 double and 2 single blocks, 2 heads of 16, 5 text tokens."""
    values: dict[str, object] = {
        "layers": 1,
        "single_layers": 2,
        "heads": 2,
        "head_dim": 16,
        "in_channels": 6,
        "joint_dim": 10,
        "pooled_dim": 7,
        "axes": (4, 6, 6),
        "text": 5,
    }
    return ClearConfig("clear-custom", radius, down, **values | facts)


def network(config: ClearConfig, seed: int = 0) -> ClearTransformer:
    """Random weights, norms and pooling not uniform."""
    result = ClearTransformer(config).eval().requires_grad_(False)
    random = seeded(seed)
    for name, parameter in result.named_parameters():
        spread = 0.3 if name.endswith("weight") and parameter.dim() == 1 else parameter.shape[-1] ** -0.5
        parameter.copy_(torch.randn(parameter.shape, generator=random) * spread)
        if name.endswith(("norm_q.weight", "norm_k.weight")):
            parameter.add_(1)
    return result


def inputs(config: ClearConfig, height: int, width: int, seed: int = 1, batch: int = 1) -> list[Tensor]:
    random = seeded(seed)
    shapes = (
        (batch, height, width, config.in_channels),
        (batch, config.text, config.joint_dim),
        (batch, config.pooled_dim),
    )
    tensors = [torch.randn(shape, generator=random) for shape in shapes]
    tensors.append(torch.full((batch,), 0.75))
    return [*tensors, torch.full((batch,), 3.5)] if config.guidance else tensors


def official(variant: str) -> tuple[ClearTransformer, list[Tensor], Tensor]:
    """The official tiny network in one of `VARIANTS`, its inputs and its output (1, 16, 24, 16)."""
    tensors = load_file(OFFICIAL.with_suffix(".safetensors"))
    about = json.loads(OFFICIAL.with_suffix(".json").read_text())
    sizes, grid = about["config"], (about["height"], about["width"])
    proportional = variant.endswith("_prop_ntk10")
    config = ClearConfig(
        "clear-custom",
        None if variant.startswith("dense") else int(variant[1]),
        4 if "down4" in variant else 0,
        sizes["num_layers"],
        sizes["num_single_layers"],
        sizes["num_attention_heads"],
        sizes["attention_head_dim"],
        sizes["in_channels"],
        sizes["joint_attention_dim"],
        sizes["pooled_projection_dim"],
        sizes["guidance_embeds"],
        tuple(sizes["axes_dims_rope"]),
        about["text_tokens"],
        proportional,
        10.0 if proportional else 1.0,
    )
    result = ClearTransformer(config).eval().requires_grad_(False)
    prefix = "model."
    weights = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    result.load_state_dict({key: value for key, value in weights.items() if config.down or "spatial" not in key})
    names = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance")
    given = [tensors[f"in.{name}"] for name in names]
    given[0] = given[0].unflatten(1, grid)
    return result, given, tensors[f"out.{variant}"].unflatten(1, grid)
