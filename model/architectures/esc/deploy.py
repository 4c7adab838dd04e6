"""ESC-RIB in its deployment form."""

import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.esc.config import ESCConfig
from flashrib.model.architectures.esc.network import pad_to_windows
from flashrib.model.deploy import FFN, Attention, DeployedUpscaler, Norm, channels_first, top_left


class ConvLayer(nn.Module):
    """Convolutional layer of ESC: (B, H, W, C) -> (B, H, W, C), without the residual.

    The last 1x1 convolution of the FFN and the one after the partial convolution are merged wherever nothing stands between them:
    `ffn` gives the C final channels without the contribution of the P convolved ones, then those P channels themselves.
    """

    def __init__(self, dim: int, pdim: int, hidden: int, norm: Norm | None) -> None:
        super().__init__()
        self.dim, self.pdim = dim, pdim
        self.ffn = FFN(dim, hidden, dim + pdim, norm)
        self.squeeze = nn.Linear(pdim, pdim // 2)
        self.expand = nn.Linear(pdim // 2, 9 * pdim)
        self.aggr = nn.Linear(pdim, dim, bias=False)

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        passed, head = self.ffn(x).split([self.dim, self.pdim], dim=-1)
        dynamic = self.expand(F.gelu(self.squeeze(head.mean((1, 2))))).reshape(-1, 1, 3, 3)  # (B*P, 1, 3, 3)
        head = head.permute(0, 3, 1, 2)
        images = head.reshape(1, dynamic.shape[0], *head.shape[2:])  # (1, B*P, H, W): one group per channel and image
        mixed = F.conv2d(images, dynamic, padding=1, groups=dynamic.shape[0]).reshape(head.shape)
        mixed = mixed + F.conv2d(head, kernel, padding=kernel.shape[-1] // 2)
        return passed + self.aggr(mixed.permute(0, 2, 3, 1))


class ESCBlock(nn.Module):
    """FFN, attention, convolutional layers and a 3x3 convolution: (B, H, W, C) -> same."""

    def __init__(self, ffn: FFN, attention: Attention, layers: list[ConvLayer], norm: Norm, conv: nn.Conv2d) -> None:
        super().__init__()
        self.ffn, self.attention, self.layers = ffn, attention, nn.ModuleList(layers)
        self.norm, self.conv = norm, conv

    def forward(self, x: Tensor, kernel: Tensor) -> Tensor:
        y = self.ffn(x)
        y = y + self.attention(y)
        for layer in self.layers:
            y = y + layer(y, kernel)
        return x + channels_first(self.conv, self.norm(y))


class DeployedESC(DeployedUpscaler):
    """ESC-RIB in its deployment form, which pads the picture to whole windows; see `DeployedUpscaler`."""

    config: ESCConfig

    def __init__(self, config: ESCConfig, upsampler: nn.Module, blocks: list[ESCBlock], kernel: Tensor) -> None:
        super().__init__(config, upsampler)
        self.blocks = nn.ModuleList(blocks)
        self.kernel = nn.Parameter(kernel)

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, self.kernel)
        return x

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        y = self.reconstruct(pad_to_windows(picture, self.config.window))
        return top_left(y, self.config.scale * height, self.config.scale * width)
