"""Configuration of a Fibottention ViT, and its presets. Needs no torch."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from flashrib.model.config import Input, NetworkConfig
from flashrib.runtime.errors import UsageError

FAMILY = "fibottention"
MASK_MODES = ("neg_inf", "zero_logit", "dense")
LOGIT_SCALES = ("d^-1/2", "d^-1")
VARIANTS = ("standard", "modified")
ORDERS = ("depth", "depth0", "none")
SPREADS = ("third", "full")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What keys and shapes of a checkpoint do not tell: field -> its possible values, or None where it is a number.
FACTS: dict[str, tuple[str, ...] | None] = {
    "heads": None,
    "mask_mode": MASK_MODES,
    "logit_scale": LOGIT_SCALES,
    "variant": VARIANTS,
    "order": ORDERS,
    "spread": SPREADS,
}


@dataclasses.dataclass(frozen=True)
class FibottentionConfig(NetworkConfig):
    """Configuration of a Fibottention ViT, or with `mask_mode` "dense" of a plain one.

    Attributes:
        name: preset name, or "fibottention-custom".
        dim: channels C of a token.
        depth: number of blocks.
        heads: number of heads; divides `dim`.
        patch: side P of a patch, in pixels.
        grid: patches along a side of the picture, which is square: N = grid * grid.
        classes: classes K; 0: no head, the result is the normalised class token.
        hidden: hidden channels of an MLP.
        mask_mode: what becomes of keys that a head does not see: "zero_logit" gives them logit 0, as the official code does, "neg_inf"
            weight 0; "dense" is a plain ViT.
        logit_scale: factor of the logits, D being the channels of a head: "d^-1/2", or "d^-1" of networks trained by the benchmark copy.
        variant: "standard" or "modified" rows of offsets, see `flashrib.model.attention.fibonacci.offsets`.
        order: how rows are shuffled over heads: by each block's number ("depth"), all as in the first block ("depth0"), or "none".
        spread: windows from 5 to N//3 over the heads ("third"), or N for all ("full").
        mean: what the training subtracted from the channels of a picture in 0..1.
        std: what it divided them by then. The network takes pictures in 0..1 and does both itself.
    """

    name: str
    dim: int
    depth: int
    heads: int
    patch: int
    grid: int
    classes: int = 1000
    hidden: int = 0
    mask_mode: Literal["neg_inf", "zero_logit", "dense"] = "neg_inf"
    logit_scale: Literal["d^-1/2", "d^-1"] = "d^-1/2"
    variant: Literal["standard", "modified"] = "standard"
    order: Literal["depth", "depth0", "none"] = "depth"
    spread: Literal["third", "full"] = "third"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    family = FAMILY
    task = "classify"
    whole_picture = True

    def __post_init__(self) -> None:
        if not self.hidden:
            object.__setattr__(self, "hidden", 4 * self.dim)
        for field in ("dim", "depth", "heads", "patch", "grid"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field} is {getattr(self, field)}, but it must be at least 1")
        if self.dim % self.heads:
            raise UsageError(f"the number of heads must divide dim = {self.dim}, got {self.heads}")
        for field in ("mean", "std"):  # lists, as JSON has them, are taken
            values = tuple(float(value) for value in getattr(self, field))
            if len(values) != 3 or not all(map(math.isfinite, values)) or (field == "std" and min(values) <= 0):
                raise UsageError(f"{field} is {values}, but it must be three numbers, those of std above 0")
            object.__setattr__(self, field, values)
        for field, possible in FACTS.items():
            if possible is not None and getattr(self, field) not in possible:
                raise UsageError(f"{field} {getattr(self, field)!r} is not one of {', '.join(possible)}")

    @property
    def size(self) -> int:
        """Side of the picture, in pixels. Another side is another pattern of offsets, so it is fixed."""
        return self.patch * self.grid

    @property
    def patches(self) -> int:
        """Patch tokens N."""
        return self.grid * self.grid

    @property
    def head_dim(self) -> int:
        """Channels D of a head."""
        return self.dim // self.heads

    @property
    def scale_of_logits(self) -> float:
        return float(self.head_dim ** (-0.5 if self.logit_scale == "d^-1/2" else -1.0))

    @property
    def minimum(self) -> int:
        return self.size

    @property
    def alignment(self) -> int:
        return self.size

    def inputs(self) -> tuple[Input, ...]:
        return (Input("input", ("batch", 3, self.size, self.size), (1, 3, self.size, self.size)),)

    def facts(self) -> dict[str, Any]:
        told = {fact: getattr(self, fact) for fact in FACTS if fact != "heads"}
        return super().facts() | {
            "task": self.task,
            "heads": (self.heads,),
            "fixed_size": (self.size, self.size),
            "architecture_config": told
            | {field: getattr(self, field) for field in ("mean", "std", "patch", "grid", "depth", "classes")},
        }


def config_of_facts(about: Mapping[str, Any]) -> FibottentionConfig:
    """What the description of an artifact says about attention, as a configuration; the width of its tokens is not known.

    Args:
        about: fields of `flashrib.runtime.artifacts.info.ModelInfo` in JSON's types.
    """
    (heads,) = about["heads"]
    return FibottentionConfig(about["architecture"], dim=heads, heads=heads, **about["architecture_config"])


_SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}  # channels, heads; all of 12 blocks
_PATCHES = (16, 8, 4, 2)
PRESETS = tuple(f"{FAMILY}-{size}-{patch}" for size in _SIZES for patch in _PATCHES)


def preset(name: str, scale: int) -> FibottentionConfig:
    """Return the configuration `name`, one of `PRESETS`, for 1000 classes of pictures of 224 x 224; `scale` is 1."""
    _, size, patch = name.split("-")
    dim, heads = _SIZES[size]
    return FibottentionConfig(name, dim, 12, heads, int(patch), 224 // int(patch))
