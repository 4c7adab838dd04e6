"""The official vectors: constructor arguments of the official code -> our configuration, and where the files lie."""

import dataclasses
import functools
import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flashrib.model import PRESETS, ESCConfig, SSTConfig
from flashrib.model.config import NetworkConfig, UpsamplerConfig
from tests.places import ROOT, SHARED

UPSCALERS = tuple(name for name in PRESETS if name != "sst-real")  # the super-resolution networks, x2 to x4
BUNDLED = ROOT / "tests" / "golden"  # copies of a few small ones, so that the suite proves something on its own
SHARED_GOLDEN = SHARED / "golden" / "sst"


def pair(window: int | list[int]) -> tuple[int, int]:
    return (window, window) if isinstance(window, int) else (window[0], window[1])


def config_from_official(kind: str, kwargs: dict[str, Any]) -> NetworkConfig:
    """Translate the official constructor's arguments (`kind` SST or ESCRIB), filling in its defaults."""
    dim = kwargs["dim"]
    upsampler = UpsamplerConfig(
        kwargs.get("upsampler_type", "pixelshuffle_direct"),
        kwargs.get("upscaling_factor", 2),
        kwargs.get("intermediate_dim", 64),
    )
    ratio = kwargs.get("exp_ratio", 2)
    rib = {"rib_hidden": kwargs.get("rib_hidden_dim", 64), "rib_freqs": kwargs.get("rib_n_freqs", 10)}
    if kind == "SST":
        heads = tuple(kwargs["num_heads"])
        return SSTConfig(
            "sst-custom",
            dim=dim,
            windows=tuple(pair(w) for w in kwargs["window_sizes"]),
            heads=heads,
            ranks=tuple(256 - dim // h if r is None else r for r, h in zip(kwargs["ranks"], heads, strict=True)),
            blocks=kwargs["n_blocks"],
            ffn_dim=int(dim * ratio),
            upsampler=upsampler,
            gate=kwargs.get("gate_type"),
            **rib,
        )
    assert kind == "ESCRIB", kind
    return ESCConfig(
        "esc-rib-custom",
        dim=dim,
        pdim=kwargs["pdim"],
        kernel_size=kwargs["kernel_size"],
        blocks=kwargs["n_blocks"],
        conv_blocks=kwargs["conv_blocks"],
        window=pair(kwargs["window_size"]),
        heads=kwargs["num_heads"],
        rank=kwargs["rank"],
        ffn_dim=int(dim * ratio),
        upsampler=upsampler,
        gate=kwargs.get("gate_type"),
        use_ln=kwargs.get("use_ln", False),
        **rib,
    )


@dataclasses.dataclass(frozen=True)
class Vector:
    """One official vector."""

    name: str
    about: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def config(self) -> NetworkConfig:
        return config_from_official(self.about["type"], self.about["kwargs"])

    @property
    def state_dict(self) -> dict[str, Tensor]:
        return {key.removeprefix("sd."): value for key, value in self.tensors.items() if key.startswith("sd.")}


def _names(kind: str) -> list[str]:
    files = {path.stem: path for folder in (SHARED_GOLDEN, BUNDLED) for path in sorted(folder.glob("*.json"))}
    about = {name: json.loads(path.read_text()) for name, path in files.items()}
    return [
        n
        for n, a in about.items()
        if isinstance(a, dict) and a.get("kind") == kind and a.get("type") in ("SST", "ESCRIB")
    ]


NETWORKS = _names("network")
PIPELINES = _names("pipeline")
INTERPOLATIONS = _names("interpolate")


@functools.cache
def load_vector(name: str) -> Vector:
    """Load a vector by name, from the project's copies or from the shared folder beside it."""
    for folder in (BUNDLED, SHARED_GOLDEN):
        if (folder / f"{name}.safetensors").exists():
            about = json.loads((folder / f"{name}.json").read_text())
            return Vector(name, about, load_file(folder / f"{name}.safetensors"))
    pytest.skip(f"the official vector {name!r} is neither in tests/golden nor in ../shared/golden/sst")


def max_abs(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a.detach().double() - b.detach().double()).abs().max())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
