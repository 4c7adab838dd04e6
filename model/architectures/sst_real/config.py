"""Configuration of SST-Real, and its official preset (official test configuration)."""

import dataclasses
import math
from typing import Any

from flashrib.model.config import AttentionConfig, Gate, Input, NetworkConfig, Window
from flashrib.model.sizes import round_up
from flashrib.runtime.errors import UsageError
from flashrib.runtime.noise import MOST_SEEDS

SCALE = 4


@dataclasses.dataclass(frozen=True)
class SSTRealConfig(NetworkConfig):
    """Configuration of an SST-Real network; windows, heads and ranks have one entry per layer of a block, and all blocks are alike.

    Attributes:
        name: preset name, or "sst-real-custom".
        dim: channels C of the feature map.
        windows: (rows, columns) of each layer's window.
        heads: number of heads of each layer; divides `dim`.
        ranks: rank R of each layer's bias.
        blocks: number of blocks.
        ffn_dim: channels G of each half of the gated FFN.
        intermediate_dim: channels n of the heads.
        emb_channels: width of the embedding of the noise level.
        noise_channels: width of its sinusoids.
        fuse_till: last block that takes the low-resolution picture's features in; -1: none.
        guide_block: block after which the guiding head reads.
        rib_hidden: width M of the bias MLP.
        rib_freqs: number L of octaves of its coordinate features.
        gate: form of the attention gate.
        sigma_data: standard deviation of the data in the preconditioning.
        use_skip: the preconditioning passes a part of its input on.
        guidance: lambda, weight of the difference between the two heads; 1 takes the last head alone.
        sigma: noise level that the network is run at, 1 being that of the official pipeline.
        pad_to: the picture is padded to multiples of it by reflection.
        dropout: probability in the FFN, in training.
        noise_source: "input": the noise is an input of its own; "none": there is no noise, the network has the picture as its one
            input; or a seed, whose noise is inside: the first `alignment` x `alignment` pixels of its map, repeated.
    """

    name: str
    dim: int
    windows: tuple[Window, ...]
    heads: tuple[int, ...]
    ranks: tuple[int, ...]
    blocks: int
    ffn_dim: int
    intermediate_dim: int
    emb_channels: int
    noise_channels: int
    fuse_till: int
    guide_block: int
    rib_hidden: int = 32
    rib_freqs: int = 10
    gate: Gate = "DWC"
    sigma_data: float = 0.5
    use_skip: bool = True
    guidance: float = 2.0
    sigma: float = 1.0
    pad_to: int = 64
    dropout: float = 0.05
    noise_source: str | int = "input"

    family = "sst-real"
    task = "upscale"

    def __post_init__(self) -> None:
        lengths = {len(self.windows), len(self.heads), len(self.ranks)}
        if len(lengths) != 1 or not self.windows:
            raise UsageError(
                f"windows, heads and ranks must have one entry per layer, got {len(self.windows)}, {len(self.heads)} and {len(self.ranks)}"
            )
        if not 0 <= self.guide_block < self.blocks:
            raise UsageError(f"guide_block must be one of the {self.blocks} blocks, got {self.guide_block}")
        if not (self.sigma >= 0 and self.sigma_data > 0 and self.pad_to >= 1):
            raise UsageError(
                f"sigma, sigma_data and pad_to must be positive, got {self.sigma}, {self.sigma_data} and {self.pad_to}"
            )
        source = self.noise_source
        if source not in ("input", "none") and not (type(source) is int and 0 <= source < MOST_SEEDS):
            raise UsageError(f"noise_source must be input, none or a seed from 0 to {MOST_SEEDS - 1}, got {source!r}")

    @property
    def scale(self) -> int:
        return SCALE

    @property
    def shifted(self) -> tuple[bool, ...]:
        """As in SST: the odd layers of a block whose windows are all equal, otherwise none."""
        equal = len(set(self.windows)) == 1
        return tuple(equal and index % 2 == 1 for index in range(len(self.windows)))

    @property
    def attentions(self) -> tuple[AttentionConfig, ...]:
        """The attention layers of a block, in order."""
        layers = zip(self.windows, self.heads, self.ranks, self.shifted, strict=True)
        return tuple(
            AttentionConfig(self.dim, window, heads, rank, self.rib_hidden, self.rib_freqs, shifted, self.gate)
            for window, heads, rank, shifted in layers
        )

    @property
    def alignment(self) -> int:
        return math.lcm(self.pad_to, *(side for window in self.windows for side in window))

    @property
    def minimum(self) -> int:
        """Smallest side whose reflection fills `pad_to`, and what that gives the largest window."""
        return max(self.pad_to, *(side for window in self.windows for side in window)) // 2 + 1

    @property
    def takes_noise(self) -> bool:
        """Noise is an input."""
        return self.noise_source == "input" and self.sigma > 0

    def open_sizes(self, height: int, width: int) -> dict[str, int]:
        sizes = super().open_sizes(height, width)
        if not self.takes_noise:
            return sizes
        rows, columns = (SCALE * round_up(side, self.alignment) for side in (height, width))
        return sizes | {"noise_height": rows, "noise_width": columns}

    def inputs(self) -> tuple[Input, ...]:
        """The picture, RGB in 0..1, and standard normal noise where it is an input.

        The noise has sides of `SCALE` times those of the picture rounded up to multiples of `alignment`; what lies beyond those of
        `pad_to` is not read.
        """
        side = self.minimum | 1
        picture = Input("input", ("batch", 3, "height", "width"), (1, 3, side, side + 2))
        if not self.takes_noise:
            return (picture,)
        noise = self.open_sizes(side, side + 2)
        example = (1, 3, noise["noise_height"], noise["noise_width"])
        return (picture, Input("noise", ("batch", 3, "noise_height", "noise_width"), example))

    def facts(self) -> dict[str, Any]:
        return super().facts() | {
            "windows": self.windows,
            "ranks": self.ranks,
            "heads": self.heads,
            "noise": self.sigma if self.takes_noise else 0.0,
            "noise_seed": self.noise_source if isinstance(self.noise_source, int) and self.sigma > 0 else None,
        }


PRESETS = ("sst-real",)


def preset(name: str, scale: int) -> SSTRealConfig:
    """Return the one official configuration, SSTReal_X4."""
    return SSTRealConfig(
        name,
        dim=192,
        windows=tuple((side, side) for side in (16, 32, 64, 16, 32, 64)),
        heads=(6,) * 6,
        ranks=(16,) * 3 + (32,) * 3,
        blocks=14,
        ffn_dim=int((192 * 3) * 2 / 3),
        intermediate_dim=96,
        emb_channels=768,
        noise_channels=192,
        fuse_till=6,
        guide_block=6,
    )
