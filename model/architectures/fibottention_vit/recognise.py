"""Fibottention checkpoints, which are those of a plain ViT: sizes from shapes, everything else from an explicit statement.

Keys do not tell the number of heads, the mask, the scale of the logits, nor which offsets a block has. They are read from the header of
our own .safetensors files, from the configuration that a caller passes, or from a file of JSON beside the checkpoint with the same name,
`vit.json` beside `vit.pth`, in this order; else loading is refused.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from flashrib.model.architectures.architecture import CONFIG, Hints
from flashrib.model.architectures.fibottention_vit import ARCHITECTURE as ROW
from flashrib.model.architectures.fibottention_vit.config import FACTS, FAMILY, FibottentionConfig
from flashrib.model.architectures.fibottention_vit.network import FibottentionViT
from flashrib.model.architectures.reader import Reader
from flashrib.model.architectures.registry import name_of
from flashrib.model.state_dict import Checkpoint, sha256_of
from flashrib.runtime.errors import CheckpointError, UsageError

_OPTIONAL = ("mean", "std")  # of a statement: of the pictures; those of ImageNet where it says nothing
_SIZE = "size"  # of a statement: another side of the picture than that of the checkpoint, in pixels


def recognise(checkpoint: Checkpoint) -> "RecognisedViT":
    """Read the sizes of a ViT and check all keys and shapes.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys, or positions that are those of no square.
    """
    # positions of 12544 tokens are more than the usual limit of an axis
    read = Reader(checkpoint.state_dict, checkpoint.path, ROW.title, largest=1 << 20)
    dim, _, patch, width = read.shape("patch_embed.proj.weight", 4)
    tokens = read.shape("pos_embed", 3)[1]
    grid = math.isqrt(max(tokens - 1, 0))
    if patch != width:
        raise read.refuse(f"patches of {patch}x{width}")
    if tokens < 2 or grid * grid != tokens - 1:
        raise read.refuse(f"{tokens} positions (pos_embed): a class token and the patches of a square are needed")
    sizes: dict[str, Any] = {
        "dim": dim,
        "depth": read.count("blocks.{}.attn.qkv.weight"),
        "patch": patch,
        "grid": grid,
        "hidden": read.shape("blocks.0.mlp.fc1.weight", 2)[0],
        "classes": read.shape("head.weight", 2)[0] if "head.weight" in checkpoint.state_dict else 0,
    }
    import torch

    with torch.device("meta"):
        empty = FibottentionViT(FibottentionConfig("", heads=1, mask_mode="dense", **sizes))
    read.check_keys(empty.state_dict())
    return RecognisedViT(checkpoint, sizes)


@dataclasses.dataclass(frozen=True)
class RecognisedViT:
    """A ViT's checkpoint; see `flashrib.model.architectures.architecture.Recognised`.

    Attributes:
        checkpoint: the file.
        sizes: fields of `FibottentionConfig` that its shapes tell.
    """

    checkpoint: Checkpoint
    sizes: Mapping[str, int]

    def resolve(self, hints: Hints) -> tuple[FibottentionConfig, Mapping[str, Tensor]]:
        config = self._config(hints)
        if isinstance(config, str):
            raise CheckpointError(f"{self.checkpoint.path}: {config}")
        weights = self.checkpoint.state_dict
        if config.grid != self.sizes["grid"]:
            weights = {**weights, "pos_embed": resize_positions(weights["pos_embed"], config.grid)}
        return config, weights

    def describe(self, hints: Hints) -> dict[str, Any]:
        config = self._config(hints)
        known = None if isinstance(config, str) else config
        head_dim = 80 if (self.sizes["dim"], self.sizes["patch"]) == (1280, 14) else 64
        facts = {fact: None if known is None else getattr(known, fact) for fact in FACTS}
        grid = self.sizes["grid"] if known is None else known.grid
        return {
            "file": str(self.checkpoint.path),
            "family": FAMILY,
            "architecture": None if known is None else known.name,
            "task": FibottentionConfig.task,
            "scale": 1,
            **self.sizes,
            "grid": grid,
            "size": grid * self.sizes["patch"],
            **facts,
            **({} if known else {"usual_heads": max(self.sizes["dim"] // head_dim, 1)}),
            "parameters": sum(value.numel() for value in self.checkpoint.state_dict.values()),
            "dtype": self.checkpoint.dtype,
            "sha256": sha256_of(self.checkpoint.path),
        }

    def _config(self, hints: Hints) -> FibottentionConfig | str:
        """The configuration, or why there is none."""
        path = self.checkpoint.path
        if hints.config is not None:
            if not isinstance(hints.config, FibottentionConfig):
                raise CheckpointError(f"{path}: a ViT, but the configuration passed is that of {hints.config.family}")
            return self._named(hints.config, "the configuration passed", hints)
        if (header := self.checkpoint.metadata.get(CONFIG)) is not None:
            values = _object(header, f"{path}: its header {CONFIG}")
            return self._named(self._made(values, f"{path}: its header {CONFIG}"), "its header", hints)
        beside = path.with_suffix(".json")
        if not beside.is_file():
            example = dict.fromkeys(FACTS, "...") | {"heads": max(self.sizes["dim"] // 64, 1)}
            return (
                f"a ViT's keys do not tell {', '.join(FACTS)}: state them in {beside.name} beside it, as {json.dumps(example)};"
                f" {_possible()}"
            )
        try:
            text = beside.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{beside}: cannot be read: {error}") from error
        values = _object(text, str(beside))
        size = values.pop(_SIZE, self.sizes["grid"] * self.sizes["patch"])
        if missing := [fact for fact in FACTS if fact not in values]:
            raise CheckpointError(f"{beside}: does not state {', '.join(missing)}; {_possible()}")
        if unknown := [name for name in values if name not in (*FACTS, *_OPTIONAL)]:
            raise CheckpointError(
                f"{beside}: states {unknown[0]!r}, which is none of {', '.join((*FACTS, *_OPTIONAL, _SIZE))}"
            )
        if type(size) is not int or size < 1 or size % self.sizes["patch"]:
            raise CheckpointError(
                f"{beside}: size {size!r} is no multiple of the patches' {self.sizes['patch']} pixels"
            )
        made = self._made({"name": "", **self.sizes, **values, "grid": size // self.sizes["patch"]}, str(beside))
        return self._named(made, str(beside), hints, resized=True)

    def _made(self, values: Mapping[str, Any], where: str) -> FibottentionConfig:
        for field in dataclasses.fields(FibottentionConfig):
            value = values.get(field.name)
            wanted = list if field.name in _OPTIONAL else str if field.type is str or FACTS.get(field.name) else int
            if field.name in values and type(value) is not wanted:
                raise CheckpointError(f"{where}: {field.name} is {value!r}")
        try:
            return FibottentionConfig(**values)
        except (UsageError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: {error}") from error

    def _named(self, config: FibottentionConfig, who: str, hints: Hints, resized: bool = False) -> FibottentionConfig:
        """The configuration with the name of its preset, after it was compared with shapes and hints."""
        for field, seen in self.sizes.items():
            if getattr(config, field) != seen and not (resized and field == "grid"):
                raise CheckpointError(
                    f"{self.checkpoint.path}: {who} says {field} = {getattr(config, field)}, its shapes say {seen}"
                )
        config = dataclasses.replace(config, name=name_of(config))
        if hints.arch not in (None, config.name):
            raise CheckpointError(f"{self.checkpoint.path}: is {config.name}, not {hints.arch}: leave --arch out")
        return config


def resize_positions(positions: Tensor, grid: int) -> Tensor:
    """Positions (1, N+1, C) for another square of patches: bicubic, the class token's as it is, as the official code does.

    The offsets change with the number of patches, so the result is a start for finetuning.
    """
    side = math.isqrt(positions.shape[1] - 1)
    square = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # type: ignore[no-untyped-call]  # untyped in torch
    resized = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False)
    return F.pad(resized.flatten(2).transpose(1, 2), (0, 0, 1, 0)).index_copy(
        1, positions.new_zeros(1).long(), positions[:, :1]
    )


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{where}: is no JSON object")
    return values


def _possible() -> str:
    return "; ".join(f"{fact} is one of {', '.join(values)}" for fact, values in FACTS.items() if values is not None)
