"""Configurations of the networks, and the official presets.

A configuration holds exactly what the constructor of a network needs. What a checkpoint's shapes tell (dimension, heads, ranks,
FFN width, gate, upsampler, scale) and what they do not (window sides) stand side by side here; `model.checkpoint` says which is which.
Source of the presets: SST's official test configurations, all trained with RIB, M = 32, L = 10 and the DWC gate.
"""

import dataclasses
import math
from typing import Literal

from flashrib.runtime.errors import UsageError

Gate = Literal["Linear", "DWC"] | None
UpsamplerType = Literal["pixelshuffle_direct", "pixelshuffle", "nn+conv"]
Window = tuple[int, int]

SCALES = (2, 3, 4)


@dataclasses.dataclass(frozen=True)
class UpsamplerConfig:
    """The head of a network: features -> picture.

    Attributes:
        kind: "pixelshuffle_direct", "pixelshuffle" or "nn+conv".
        scale: magnification r, 2..4.
        intermediate_dim: channels n between the convolutions; "pixelshuffle_direct" has none and ignores it.
    """

    kind: UpsamplerType = "pixelshuffle_direct"
    scale: int = 2
    intermediate_dim: int = 64


@dataclasses.dataclass(frozen=True)
class SSTConfig:
    """Configuration of an SST network; the lists have one entry per layer of a block, and all blocks are alike.

    Attributes:
        name: preset name, or "sst-custom".
        dim: channels C of the feature map.
        windows: (rows, columns) of each layer's window.
        heads: number of heads of each layer; divides `dim`.
        ranks: rank R of each layer's bias.
        blocks: number of blocks.
        ffn_dim: hidden channels of the ConvFFN.
        rib_hidden: width M of the bias MLP.
        rib_freqs: number L of octaves of its coordinate features.
        upsampler: the head.
        gate: form of the attention gate.
    """

    name: str
    dim: int
    windows: tuple[Window, ...]
    heads: tuple[int, ...]
    ranks: tuple[int, ...]
    blocks: int
    ffn_dim: int
    rib_hidden: int = 32
    rib_freqs: int = 10
    upsampler: UpsamplerConfig = UpsamplerConfig()
    gate: Gate = "DWC"

    family = "sst"
    whole_picture = False

    def __post_init__(self) -> None:
        lengths = {len(self.windows), len(self.heads), len(self.ranks)}
        if len(lengths) != 1 or not self.windows:
            raise UsageError(
                f"windows, heads and ranks must have one entry per layer, got {len(self.windows)}, {len(self.heads)} and {len(self.ranks)}"
            )
        if any(self.dim % heads for heads in self.heads):
            raise UsageError(f"every number of heads must divide dim = {self.dim}, got {self.heads}")

    @property
    def scale(self) -> int:
        return self.upsampler.scale

    @property
    def shifted(self) -> tuple[bool, ...]:
        """Which layers roll the map by half a window: the odd ones of a block whose windows are all equal, otherwise none."""
        equal = len(set(self.windows)) == 1
        return tuple(equal and index % 2 == 1 for index in range(len(self.windows)))

    @property
    def alignment(self) -> int:
        return _alignment(self.windows)

    @property
    def minimum(self) -> int:
        return _minimum(self.windows)


@dataclasses.dataclass(frozen=True)
class ESCConfig:
    """Configuration of an ESC-RIB network.

    Attributes:
        name: preset name, or "esc-rib-custom".
        dim: channels C of the feature map.
        pdim: channels P that the large-kernel convolution works on.
        kernel_size: side K of the shared kernel, odd.
        blocks: number of blocks.
        conv_blocks: convolutional layers per block.
        window: (rows, columns) of the attention window.
        heads: number of heads; divides `dim`.
        rank: rank R of the bias.
        ffn_dim: hidden channels of the ConvFFN in the convolutional layers; the one before attention has 4 * dim.
        rib_hidden: width M of the bias MLP.
        rib_freqs: number L of octaves of its coordinate features.
        upsampler: the head.
        gate: form of the attention gate.
        use_ln: LayerNorm in front of each convolutional layer.
    """

    name: str
    dim: int = 64
    pdim: int = 16
    kernel_size: int = 13
    blocks: int = 5
    conv_blocks: int = 5
    window: Window = (64, 64)
    heads: int = 4
    rank: int = 16
    ffn_dim: int = 80
    rib_hidden: int = 32
    rib_freqs: int = 10
    upsampler: UpsamplerConfig = UpsamplerConfig()
    gate: Gate = "DWC"
    use_ln: bool = False

    family = "esc-rib"
    whole_picture = True  # every convolutional layer averages over the whole map

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise UsageError(f"the number of heads must divide dim = {self.dim}, got {self.heads}")

    @property
    def scale(self) -> int:
        return self.upsampler.scale

    @property
    def windows(self) -> tuple[Window, ...]:
        return (self.window,)

    @property
    def ranks(self) -> tuple[int, ...]:
        return (self.rank,)

    @property
    def alignment(self) -> int:
        return _alignment(self.windows)

    @property
    def minimum(self) -> int:
        return _minimum(self.windows)


NetworkConfig = SSTConfig | ESCConfig


def _alignment(windows: tuple[Window, ...]) -> int:
    return math.lcm(*(side for window in windows for side in window))


def _minimum(windows: tuple[Window, ...]) -> int:
    """Smallest side whose reflection without repeating the edge still fills the largest window."""
    return max(side for window in windows for side in window) // 2 + 1


_LIGHT = (8, 16, 32, 16, 32, 64)
_PLAIN = (16, 32, 64, 16, 32, 64)
_PLUS = (16, 32, 48, 32, 48, 96)

# name: dim, heads, windows, ranks (first three layers, last three), blocks, FFN ratio, upsampler, its channels
_SST_PRESETS: dict[str, tuple[int, int, tuple[int, ...], tuple[int, int], int, float, UpsamplerType, int]] = {
    "sst-light": (48, 3, _LIGHT, (16, 24), 5, 1.5, "pixelshuffle_direct", 64),
    "sst-light-plus": (48, 3, _PLUS, (16, 24), 5, 1.5, "pixelshuffle_direct", 64),
    "sst": (180, 6, _PLAIN, (18, 34), 6, 1.25, "pixelshuffle", 64),
    "sst-plus": (180, 6, _PLUS, (18, 34), 6, 1.25, "pixelshuffle", 64),
    "sst-large": (192, 6, _PLAIN, (16, 32), 8, 2, "pixelshuffle", 96),
    "sst-large-plus": (192, 6, _PLUS, (16, 32), 8, 2, "pixelshuffle", 96),
    "sst-xl-plus": (224, 7, _PLUS, (16, 32), 10, 2, "pixelshuffle", 96),
}
PRESETS = (*_SST_PRESETS, "esc-rib")


def preset(name: str, scale: int = 2) -> NetworkConfig:
    """Return the official configuration `name` (one of `PRESETS`) for magnification `scale` (2, 3 or 4).

    Raises:
        UsageError: no such preset or scale.
    """
    if scale not in SCALES:
        raise UsageError(f"scale {scale} is not one of {', '.join(map(str, SCALES))}")
    if name == "esc-rib":
        return ESCConfig(name, upsampler=UpsamplerConfig(scale=scale))
    if name not in _SST_PRESETS:
        raise UsageError(f"unknown architecture {name!r}: choose one of {', '.join(PRESETS)}")
    dim, heads, sides, (rank, rank_last), blocks, ratio, kind, channels = _SST_PRESETS[name]
    return SSTConfig(
        name,
        dim=dim,
        windows=tuple((side, side) for side in sides),
        heads=(heads,) * 6,
        ranks=(rank,) * 3 + (rank_last,) * 3,
        blocks=blocks,
        ffn_dim=int(dim * ratio),
        upsampler=UpsamplerConfig(kind, scale, channels),
    )
