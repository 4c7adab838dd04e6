"""SST in its deployment form."""

from torch import Tensor, nn

from flashrib.model.architectures.sst.config import SSTConfig
from flashrib.model.deploy import FFN, Attention, DeployedUpscaler, channels_first


class SSTBlock(nn.Module):
    """Layers (attention and FFN with residuals) and a 3x3 convolution with a residual around all: (B, H, W, C) -> same."""

    def __init__(self, attentions: list[Attention], ffns: list[FFN], conv: nn.Conv2d) -> None:
        super().__init__()
        self.attentions, self.ffns, self.conv = nn.ModuleList(attentions), nn.ModuleList(ffns), conv

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for attention, ffn in zip(self.attentions, self.ffns, strict=True):
            y = y + attention(y)
            y = y + ffn(y)
        return x + channels_first(self.conv, y)


class DeployedSST(DeployedUpscaler):
    """SST in its deployment form; see `DeployedUpscaler`."""

    def __init__(self, config: SSTConfig, upsampler: nn.Module, blocks: list[SSTBlock]) -> None:
        super().__init__(config, upsampler)
        self.blocks = nn.ModuleList(blocks)

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x
