"""ESC-RIB: a shared large-kernel convolution for most layers, RIB window attention for one layer per block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.esc.config import ESCConfig
from flashrib.model.attention.window.geometry import source_index
from flashrib.model.layers import ConvFFN, LayerNorm, WindowAttention, without_autocast
from flashrib.model.network import Upscaler
from flashrib.model.upsamplers import build_upsampler


def geometric_ensemble(kernel: Tensor) -> Tensor:
    """Average of a kernel (..., K, K) over the eight symmetries of the square. A projection: applying it twice changes nothing."""
    both = kernel + kernel.transpose(-1, -2)
    both = both + both.flip(-1)
    return (both + both.flip(-2)) / 8


def pad_to_windows(picture: Tensor, window: tuple[int, int]) -> Tensor:
    """Pad a picture (B, C, H, W) at bottom and right to whole windows by reflection."""
    height, width = picture.shape[-2:]
    dynamic = torch.onnx.is_in_onnx_export()  # an exported graph must not depend on the size it was traced with
    if dynamic or height % window[0]:
        picture = picture.index_select(2, source_index(height, window[0], 0, picture.device))
    if dynamic or width % window[1]:
        picture = picture.index_select(3, source_index(width, window[1], 0, picture.device))
    return picture


class ConvAttention(nn.Module):
    """Static K x K plus dynamic depthwise 3x3 convolution of the first P channels; the others pass through.

    The dynamic kernel of an image comes from the mean of those channels over all of its pixels.
    """

    def __init__(self, pdim: int) -> None:
        super().__init__()
        self.pdim = pdim
        self.dwc_proj = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(pdim, pdim // 2, 1), nn.GELU(), nn.Conv2d(pdim // 2, 9 * pdim, 1)
        )

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        """x (B, C, H, W), kernel (P, P, K, K) -> (B, C, H, W)."""
        head, tail = x.tensor_split([self.pdim], dim=1)
        batch, _, height, width = head.shape
        dynamic = self.dwc_proj(head).reshape(batch * self.pdim, 1, 3, 3)
        # One group per channel and image: convolves every image with its own kernel.
        images = head.reshape(1, batch * self.pdim, height, width)
        mixed = F.conv2d(images, dynamic, padding=1, groups=batch * self.pdim).reshape(head.shape)
        mixed = mixed + F.conv2d(head, kernel, padding=kernel.shape[-1] // 2)
        return torch.cat([mixed, tail], dim=1)


class PartialConv(nn.Module):
    """`ConvAttention` and the 1x1 convolution after it."""

    def __init__(self, dim: int, pdim: int) -> None:
        super().__init__()
        self.plk = ConvAttention(pdim)
        self.aggr = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        return self.aggr(self.plk(x, kernel))


class ESCBlock(nn.Module):
    """ConvFFN without a residual, attention, convolutional layers: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, config: ESCConfig) -> None:
        super().__init__()
        dim = config.dim
        self.ln_proj = LayerNorm(dim)
        self.proj = ConvFFN(dim, 4 * dim, last="aggr")
        self.ln_attn = LayerNorm(dim)
        self.attn = WindowAttention(config.attentions[0])
        self.lns = nn.ModuleList(LayerNorm(dim) if config.use_ln else nn.Identity() for _ in range(config.conv_blocks))
        self.pconvs = nn.ModuleList(PartialConv(dim, config.pdim) for _ in range(config.conv_blocks))
        self.convffns = nn.ModuleList(ConvFFN(dim, config.ffn_dim, last="aggr") for _ in range(config.conv_blocks))
        self.ln_out = LayerNorm(dim)
        self.conv_out = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        y = self.proj(self.ln_proj(x))
        y = y + self.attn(self.ln_attn(y))
        for norm, ffn, conv in zip(self.lns, self.convffns, self.pconvs, strict=True):
            y = y + conv(ffn(norm(y)), kernel)
        return x + self.conv_out(self.ln_out(y))


class ESC(Upscaler):
    """The whole network: RGB (B, 3, H, W) in 0..1 -> (B, 3, rH, rW), not clamped. Any B, H and W >= 1."""

    config: ESCConfig

    def __init__(self, config: ESCConfig) -> None:
        super().__init__()
        self.config = config
        dim, pdim, side = config.dim, config.pdim, config.kernel_size
        self.plk_filter = nn.Parameter(torch.randn(pdim, pdim, side, side) * (pdim * side * side) ** -0.5)
        self.proj = nn.Conv2d(3, dim, 3, padding=1)
        self.blocks = nn.ModuleList(ESCBlock(config) for _ in range(config.blocks))
        self.last = nn.Sequential(LayerNorm(dim), nn.Conv2d(dim, dim, 3, padding=1))
        self.upsampler = build_upsampler(dim, config.upsampler)

    def forward(self, picture: Tensor) -> Tensor:
        kernel = geometric_ensemble(self.plk_filter)
        with without_autocast(picture):  # so that the residual stream stays in the weights' dtype
            shallow = self.proj(picture)
        x = shallow
        for block in self.blocks:
            x = block(x, kernel)
        return self.upsampler(shallow + self.last(x), picture)

    def upscale(self, picture: Tensor) -> Tensor:
        """The official test pipeline: pad the picture to whole windows by reflection, run, crop.

        Not the same as `forward`, which pads the features inside each attention layer; published figures use this one.
        """
        height, width = picture.shape[-2:]
        y: Tensor = self(pad_to_windows(picture, self.config.window))
        return y[..., : self.config.scale * height, : self.config.scale * width]

    def initialise(self) -> None:
        """The large kernel is orthogonal, and there are no dynamic ones yet: the convolutions that make them are zero."""
        nn.init.orthogonal_(self.plk_filter)
        for module in self.modules():
            if isinstance(module, ConvAttention):
                last = module.dwc_proj[3]
                assert isinstance(last, nn.Conv2d)
                assert last.bias is not None
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def unquantized(self) -> set[str]:
        pooled = {name for name, _ in self.named_modules() if name.endswith("dwc_proj")}  # on a mean over the picture
        return {"proj", "last.1", "upsampler"} | pooled
