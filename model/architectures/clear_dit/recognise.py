"""Checkpoints of FLUX's transformer, with or without CLEAR's weights: sizes from shapes; the radius from header, name or caller."""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flashrib.model.architectures.architecture import CONFIG, Hints
from flashrib.model.architectures.clear_dit import ARCHITECTURE
from flashrib.model.architectures.clear_dit.config import PRESETS, ClearConfig, preset
from flashrib.model.architectures.clear_dit.network import ClearTransformer
from flashrib.model.architectures.reader import Reader
from flashrib.model.state_dict import Checkpoint, sha256_of
from flashrib.runtime.errors import CheckpointError, UsageError

_LARGEST = 65536  # channels of a layer that are believed; FLUX has up to 18432
_AXES = {128: (16, 56, 56)}  # channels of a head -> its axes; others are in the proportion of FLUX's


def config_of_shapes(read: Reader, radius: int | None, axes: tuple[int, int, int] | None = None) -> ClearConfig:
    """Read everything that shapes tell: all but the radius, the axes, and what belongs to the call (text, scale, angles)."""
    dim, in_channels = read.shape("x_embedder.weight", 2)
    (head_dim,) = read.shape("single_transformer_blocks.0.attn.norm_q.weight", 1)
    if dim % head_dim:
        raise read.refuse(f"heads of {head_dim} channels for {dim}")
    spatial = "single_transformer_blocks.0.attn.processor.spatial_weight"
    down = read.shape(spatial, 7)[3] if spatial in read.state_dict else 0
    guidance = "time_text_embed.guidance_embedder.linear_1.weight" in read.state_dict
    row = head_dim * 7 // 16 // 2 * 2
    try:
        return ClearConfig(
            "clear-custom",
            radius,
            down,
            read.count("transformer_blocks.{}.attn.norm_q.weight"),
            read.count("single_transformer_blocks.{}.attn.norm_q.weight"),
            dim // head_dim,
            head_dim,
            in_channels,
            read.shape("context_embedder.weight", 2)[1],
            read.shape("time_text_embed.text_embedder.linear_1.weight", 2)[1],
            guidance,
            axes or _AXES.get(head_dim, (head_dim - 2 * row, row, row)),
        )
    except UsageError as error:
        raise CheckpointError(f"{read.source}: {error}") from error


@dataclasses.dataclass(frozen=True)
class RecognisedClear:
    """See `flashrib.model.architectures.architecture.Recognised`."""

    checkpoint: Checkpoint
    read: Reader

    def _stated(self, hints: Hints) -> ClearConfig | None:
        """What the caller, the header or an official name say; shapes must agree with it."""
        path = self.checkpoint.path
        if hints.config is not None:
            if not isinstance(hints.config, ClearConfig):
                raise CheckpointError(
                    f"{path}: a CLEAR checkpoint, but the configuration passed is of {hints.config.family}"
                )
            return hints.config
        if (text := self.checkpoint.metadata.get(CONFIG)) is not None:
            try:
                return ClearConfig(**json.loads(text))
            except (ValueError, TypeError, UsageError) as error:
                raise CheckpointError(f"{path}: its header's {CONFIG} is no configuration of CLEAR: {error}") from error
        named = file_name(re.sub(r"[\s_-]+", "-", path.stem.lower()))
        name = hints.arch or (named[0] if named else None)
        if name is None:
            return None
        if name not in PRESETS:
            raise CheckpointError(f"{path}: a CLEAR checkpoint, not {name!r}: choose one of {', '.join(PRESETS)}")
        return preset(name, 1)

    def resolve(self, hints: Hints) -> tuple[ClearConfig, Mapping[str, Tensor]]:
        stated = self._stated(hints)
        if stated is None:
            raise CheckpointError(
                f"{self.checkpoint.path}: the radius of CLEAR's attention is in no key and no shape: pass --arch, one of"
                f" {', '.join(PRESETS)}, or load_model(path, config=...)"
            )
        seen = config_of_shapes(self.read, stated.radius)
        for field in (
            "down",
            "layers",
            "single_layers",
            "heads",
            "head_dim",
            "in_channels",
            "joint_dim",
            "pooled_dim",
            "guidance",
        ):
            if getattr(seen, field) != getattr(stated, field):
                raise CheckpointError(
                    f"{self.checkpoint.path}: its shapes say {field} {getattr(seen, field)}, but {stated.name!r} has"
                    f" {getattr(stated, field)}"
                )
        return stated, self.checkpoint.state_dict

    def describe(self, hints: Hints) -> dict[str, Any]:
        stated = self._stated(hints)
        seen = config_of_shapes(self.read, 1)
        return {
            "file": str(self.checkpoint.path),
            "family": seen.family,
            "architecture": None if stated is None else stated.name,
            "candidates": [name for name in PRESETS if preset(name, 1).down == seen.down],
            "scale": 1,
            "radius": None if stated is None else stated.radius,
            "down": seen.down,
            "layers": seen.layers,
            "single_layers": seen.single_layers,
            "heads": [seen.heads],
            "dim": seen.dim,
            "parameters": sum(value.numel() for value in self.checkpoint.state_dict.values()),
            "alignment": seen.alignment,
            "minimum": seen.minimum,
            "whole_picture": True,
            "dtype": self.checkpoint.dtype,
            "sha256": sha256_of(self.checkpoint.path),
        }


def recognise(checkpoint: Checkpoint) -> RecognisedClear:
    """Check that all keys and shapes are those of a transformer of FLUX, with CLEAR's pooling weights or without.

    Raises:
        CheckpointError: they are not.
    """
    read = Reader(checkpoint.state_dict, checkpoint.path, ARCHITECTURE.title, _LARGEST)
    try:
        config = config_of_shapes(read, 1)
        with torch.device("meta"):
            read.check_keys(ClearTransformer(config).state_dict())
    except KeyError as error:
        raise read.missing([str(error)]) from error
    return RecognisedClear(checkpoint, read)


def file_name(stem: str) -> tuple[str, int] | None:
    """Preset that clear_local_8, clear_local_16_down_4, ... stand for: the names of the published files."""
    return (stem, 1) if stem in PRESETS else None
