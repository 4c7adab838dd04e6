"""Configuration of SST, and the official presets, all trained with RIB, M = 32, L = 10 and the DWC gate (official test configurations)."""

import dataclasses

from flashrib.model.config import (
    DIRECT,
    AttentionConfig,
    Gate,
    UpsamplerConfig,
    UpsamplerType,
    UpscalerConfig,
    Window,
)
from flashrib.runtime.errors import UsageError


@dataclasses.dataclass(frozen=True)
class SSTConfig(UpscalerConfig):
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
    upsampler: UpsamplerConfig = DIRECT
    gate: Gate = "DWC"

    family = "sst"

    def __post_init__(self) -> None:
        lengths = {len(self.windows), len(self.heads), len(self.ranks)}
        if len(lengths) != 1 or not self.windows:
            raise UsageError(
                f"windows, heads and ranks must have one entry per layer, got {len(self.windows)}, {len(self.heads)} and {len(self.ranks)}"
            )
        if any(self.dim % heads for heads in self.heads):
            raise UsageError(f"every number of heads must divide dim = {self.dim}, got {self.heads}")

    @property
    def shifted(self) -> tuple[bool, ...]:
        """Which layers roll the map by half a window: the odd ones of a block whose windows are all equal, otherwise none."""
        equal = len(set(self.windows)) == 1
        return tuple(equal and index % 2 == 1 for index in range(len(self.windows)))

    @property
    def attentions(self) -> tuple[AttentionConfig, ...]:
        layers = zip(self.windows, self.heads, self.ranks, self.shifted, strict=True)
        return tuple(
            AttentionConfig(self.dim, window, heads, rank, self.rib_hidden, self.rib_freqs, shifted, self.gate)
            for window, heads, rank, shifted in layers
        )


_LIGHT = (8, 16, 32, 16, 32, 64)
_PLAIN = (16, 32, 64, 16, 32, 64)
_PLUS = (16, 32, 48, 32, 48, 96)

# name: dim, heads, windows, ranks (first three layers, last three), blocks, FFN ratio, upsampler, its channels
_PRESETS: dict[str, tuple[int, int, tuple[int, ...], tuple[int, int], int, float, UpsamplerType, int]] = {
    "sst-light": (48, 3, _LIGHT, (16, 24), 5, 1.5, "pixelshuffle_direct", 64),
    "sst-light-plus": (48, 3, _PLUS, (16, 24), 5, 1.5, "pixelshuffle_direct", 64),
    "sst": (180, 6, _PLAIN, (18, 34), 6, 1.25, "pixelshuffle", 64),
    "sst-plus": (180, 6, _PLUS, (18, 34), 6, 1.25, "pixelshuffle", 64),
    "sst-large": (192, 6, _PLAIN, (16, 32), 8, 2, "pixelshuffle", 96),
    "sst-large-plus": (192, 6, _PLUS, (16, 32), 8, 2, "pixelshuffle", 96),
    "sst-xl-plus": (224, 7, _PLUS, (16, 32), 10, 2, "pixelshuffle", 96),
}
PRESETS = tuple(_PRESETS)


def preset(name: str, scale: int) -> SSTConfig:
    """Return the official configuration `name`, one of `PRESETS`, for magnification `scale`."""
    dim, heads, sides, (rank, rank_last), blocks, ratio, kind, channels = _PRESETS[name]
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
