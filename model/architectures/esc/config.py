"""Configuration of ESC-RIB, and its official preset."""

import dataclasses

from flashrib.model.config import DIRECT, AttentionConfig, Gate, UpsamplerConfig, UpscalerConfig, Window
from flashrib.runtime.errors import UsageError

NO_FFN = 0


@dataclasses.dataclass(frozen=True)
class ESCConfig(UpscalerConfig):
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
        ffn_dim: hidden channels of the ConvFFN in the convolutional layers; the one before attention has 4 * dim. Without such layers
            `NO_FFN` stands here, and False in `use_ln`, whatever is passed.
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
    upsampler: UpsamplerConfig = DIRECT
    gate: Gate = "DWC"
    use_ln: bool = False

    family = "esc-rib"
    whole_picture = True  # every convolutional layer averages over the whole map

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise UsageError(f"the number of heads must divide dim = {self.dim}, got {self.heads}")
        if not self.conv_blocks:
            object.__setattr__(self, "ffn_dim", NO_FFN)
            object.__setattr__(self, "use_ln", False)

    @property
    def windows(self) -> tuple[Window, ...]:
        return (self.window,)

    @property
    def ranks(self) -> tuple[int, ...]:
        return (self.rank,)

    @property
    def attentions(self) -> tuple[AttentionConfig, ...]:
        return (
            AttentionConfig(
                self.dim, self.window, self.heads, self.rank, self.rib_hidden, self.rib_freqs, gate=self.gate
            ),
        )


PRESETS = ("esc-rib",)


def preset(name: str, scale: int) -> ESCConfig:
    """Return the official configuration `name`, one of `PRESETS`, for magnification `scale`."""
    return ESCConfig(name, upsampler=UpsamplerConfig(scale=scale))
