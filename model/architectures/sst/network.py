"""SST: Scaling Super-resolution Transformer with RIB window attention."""

from torch import Tensor, nn

from flashrib.model.architectures.sst.config import SSTConfig
from flashrib.model.layers import ConvFFN, LayerNorm, WindowAttention, without_autocast
from flashrib.model.network import Upscaler
from flashrib.model.upsamplers import build_upsampler


class SSTLayer(nn.Module):
    """Attention and FFN, each with its LayerNorm in front and a residual around: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, config: SSTConfig, index: int) -> None:
        super().__init__()
        self.norm_attn = LayerNorm(config.dim)
        self.attn = WindowAttention(config.attentions[index])
        self.norm_ffn = LayerNorm(config.dim)
        self.ffn = ConvFFN(config.dim, config.ffn_dim, last="agg")

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm_attn(x))
        return x + self.ffn(self.norm_ffn(x))


class SST(Upscaler):
    """The whole network: RGB (B, 3, H, W) in 0..1 -> (B, 3, rH, rW), not clamped. Any H and W >= 1."""

    config: SSTConfig

    def __init__(self, config: SSTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.proj = nn.Conv2d(3, dim, 3, padding=1)
        blocks = [
            nn.Sequential(
                *(SSTLayer(config, index) for index in range(len(config.windows))), nn.Conv2d(dim, dim, 3, padding=1)
            )
            for _ in range(config.blocks)
        ]
        self.body = nn.Sequential(*blocks, LayerNorm(dim), nn.Conv2d(dim, dim, 3, padding=1))
        self.upsampler = build_upsampler(dim, config.upsampler)

    def forward(self, picture: Tensor) -> Tensor:
        with without_autocast(picture):  # so that the residual stream stays in the weights' dtype
            shallow = self.proj(picture)
        *blocks, norm, last = self.body
        x = shallow
        for block in blocks:
            x = x + block(x)
        return self.upsampler(shallow + last(norm(x)), picture)

    def initialise(self) -> None:
        """Biases are zero, 1x1 convolutions are drawn from a normal distribution of width 0.02, the others are PyTorch's."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module.kernel_size == (1, 1):
                    nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def unquantized(self) -> set[str]:
        return {"proj", f"body.{len(self.body) - 1}", "upsampler"}
