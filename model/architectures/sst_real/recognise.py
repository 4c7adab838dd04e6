"""SST-Real checkpoints: sizes from shapes, the rest from the header of our own files, the caller, or the one official network."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from flashrib.model.architectures.architecture import CONFIG, Hints
from flashrib.model.architectures.reader import Layout, Reader
from flashrib.model.architectures.sst_real.config import SSTRealConfig, preset
from flashrib.model.architectures.sst_real.network import SSTReal
from flashrib.model.state_dict import Checkpoint, sha256_of
from flashrib.runtime.errors import CheckpointError, UsageError

# what no shape tells
_UNTOLD = (
    "name",
    "windows",
    "guide_block",
    "sigma_data",
    "use_skip",
    "guidance",
    "sigma",
    "pad_to",
    "dropout",
    "noise_source",
)


def file_name(stem: str) -> tuple[str, int] | None:
    """Preset and scale of SSTReal_X4, sst-real-x4, ..."""
    return ("sst-real", 4) if re.fullmatch(r"sst-?real(?:-x4)?(?:-\(\d+\))?", stem) else None


def layout_of(config: SSTRealConfig) -> Layout:
    """The part of a configuration that shows in keys and shapes."""
    return {
        field.name: getattr(config, field.name) for field in dataclasses.fields(config) if field.name not in _UNTOLD
    }


def recognise(checkpoint: Checkpoint) -> "RecognisedSSTReal":
    """Read the sizes of a network from the shapes, and check that every key and shape belongs to it.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys.
    """
    read = Reader(checkpoint.state_dict, checkpoint.path, "an SST-Real")
    dim = read.shape("model.proj_in.weight", 4)[0]
    layer = "model.proj_body.0.blocks.{}.attn"
    layers, blocks = read.count(layer + ".to_q"), read.count("model.proj_body.{}.gamma")
    if not layers or not blocks:
        raise read.missing(["model.proj_body.0.blocks.0.attn.to_q"])
    heads, ranks = zip(*(read.heads_and_rank(layer.format(i), dim) for i in range(layers)), strict=True)
    width, channels = read.shape("model.map_noise.mlp.0.weight", 2)
    fused = [i for i in range(blocks) if f"model.proj_body.{i}.fuse_lr.weight" in checkpoint.state_dict]
    layout: Layout = {
        "dim": dim,
        "heads": heads,
        "ranks": ranks,
        "blocks": blocks,
        "ffn_dim": read.shape("model.proj_body.0.blocks.0.ffn.w3.weight", 4)[1],
        "intermediate_dim": read.shape("model.up_i.0.weight", 4)[0],
        "emb_channels": width,
        "noise_channels": channels,
        "fuse_till": max(fused, default=-1),
        **read.rib_and_gate(layer.format(0)),
    }
    untold: Layout = {"name": "", "windows": ((1, 1),) * layers, "guide_block": 0}
    read.check_keys(SSTReal(SSTRealConfig(**layout, **untold)).state_dict())
    return RecognisedSSTReal(checkpoint, layout)


@dataclasses.dataclass(frozen=True)
class RecognisedSSTReal:
    """What the keys and shapes of a checkpoint tell; see `flashrib.model.architectures.architecture.Recognised`."""

    checkpoint: Checkpoint
    layout: Layout

    def resolve(self, hints: Hints) -> tuple[SSTRealConfig, Mapping[str, Tensor]]:
        """See `Recognised.resolve`."""
        path = self.checkpoint.path
        if hints.scale not in (None, 4):
            raise CheckpointError(f"{path}: SST-Real magnifies by 4 only: leave --scale {hints.scale} out")
        config = self._config(hints)
        if config is None:
            raise CheckpointError(
                f"{path}: no preset has its sizes, and a checkpoint does not tell windows, guidance and noise level: pass"
                " load_model(path, config=...) and save_safetensors() the result, which stores them"
            )
        wanted = layout_of(config)
        different = [
            f"{key} {self.layout[key]} instead of {wanted[key]}" for key in wanted if self.layout[key] != wanted[key]
        ]
        if different:
            raise CheckpointError(
                f"{path}: its shapes contradict the configuration {config.name!r}: {', '.join(different)}"
            )
        return config, self.checkpoint.state_dict

    def describe(self, hints: Hints) -> dict[str, Any]:
        """See `Recognised.describe`. Sides are in input pixels."""
        config = self._config(hints)
        known = None if config is None else config.facts()
        return {
            "file": str(self.checkpoint.path),
            "family": SSTRealConfig.family,
            "architecture": None if config is None else config.name,
            "candidates": ["sst-real"] if self._is_preset() else [],
            "scale": 4,
            "windows": known and [list(window) for window in known["windows"]],
            "ranks": list(self.layout["ranks"]),
            "heads": list(self.layout["heads"]),
            "dim": self.layout["dim"],
            "blocks": self.layout["blocks"],
            "gate": self.layout["gate"],
            "upsampler": "nearest and convolutions",
            "parameters": sum(value.numel() for value in self.checkpoint.state_dict.values()),
            "alignment": known and known["alignment"],
            "minimum": known and known["minimum"],
            "whole_picture": False,
            "noise": known and known["noise"],
            **({"noise_seed": seed} if known and (seed := known["noise_seed"]) is not None else {}),
            "dtype": self.checkpoint.dtype,
            "sha256": sha256_of(self.checkpoint.path),
        }

    def _is_preset(self) -> bool:
        return self.layout == layout_of(preset("sst-real", 4))

    def _config(self, hints: Hints) -> SSTRealConfig | None:
        path = self.checkpoint.path
        if hints.config is not None:
            if not isinstance(hints.config, SSTRealConfig):
                raise CheckpointError(
                    f"{path}: its shapes contradict the configuration passed: family sst-real instead of {hints.config.family}"
                )
            return hints.config
        if CONFIG in self.checkpoint.metadata:
            return self._from_header(self.checkpoint.metadata[CONFIG])
        if hints.arch not in (None, "sst-real"):
            raise CheckpointError(f"{path}: an SST-Real checkpoint, not {hints.arch!r}")
        return preset("sst-real", 4) if self._is_preset() else None

    def _from_header(self, text: str) -> SSTRealConfig:
        try:
            values = json.loads(text)
            for name in ("windows", "heads", "ranks"):
                values[name] = tuple(tuple(v) if isinstance(v, list) else v for v in values[name])
            return SSTRealConfig(**values)
        except (ValueError, TypeError, KeyError, RecursionError, UsageError) as error:
            raise CheckpointError(f"{self.checkpoint.path}: its header's {CONFIG} is damaged: {text[:80]!r}") from error
