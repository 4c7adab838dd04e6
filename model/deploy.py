"""Deployment form of the networks: channels-last maps, constants folded in, nothing left that only training needs.

`model.fold` makes these modules from the training form; `export` turns them into ONNX. Maps are (B, H, W, C) between the 3x3
convolutions, so that every 1x1 convolution is a matrix product and the attention operator reads and writes in place.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.esc.network import pad_to_windows
from flashrib.model.attention.window import window_attention
from flashrib.model.attention.window.symbolic import position_codes_symbolic
from flashrib.model.config import Gate, NetworkConfig, Window
from flashrib.model.layers import LAYER_NORM_EPS
from flashrib.model.rib import position_codes


def channels_first(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a module that wants (B, C, H, W) to a channels-last map."""
    y: Tensor = conv(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)


class Norm(nn.Module):
    """LayerNorm over the last dimension, with its affine part only where it could not be folded away."""

    def __init__(self, dim: int, affine: bool) -> None:
        super().__init__()
        self.dim = dim
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None
        self.bias = nn.Parameter(torch.zeros(dim)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.dim,), self.weight, self.bias, LAYER_NORM_EPS)


class PositionCodes(nn.Module):
    """The recipe of a layer's constants pos_q and pos_k: two small tables and two small matrices instead of 2*heads*N*R values.

    Depends on no input, so every runtime evaluates it once when it loads the network.
    """

    def __init__(self, window: Window, heads: int, hidden: int, rank: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(window[0], hidden))
        self.columns = nn.Parameter(torch.zeros(window[1], hidden))
        self.to_q = nn.Parameter(torch.zeros(heads, hidden, rank))
        self.to_k = nn.Parameter(torch.zeros(heads, hidden, rank))

    def forward(self) -> tuple[Tensor, Tensor]:
        codes = position_codes_symbolic if torch.onnx.is_in_onnx_export() else position_codes
        return codes(self.rows, self.columns, self.to_q, self.to_k)


class Attention(nn.Module):
    """LayerNorm, window attention, gate and output projection: (B, H, W, C) -> (B, H, W, C), without the residual.

    Args:
        dim: channels C.
        head_dim: channels of a head as the operator sees them; may be wider than C / heads, filled with zero channels.
    """

    def __init__(
        self,
        dim: int,
        window: Window,
        shift: Window,
        heads: int,
        head_dim: int,
        rank: int,
        rib_hidden: int,
        gate: Gate,
        norm: Norm,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.window, self.shift, self.heads = window, shift, heads
        self.norm = norm
        self.qkv = nn.Linear(dim, 3 * inner)
        self.codes = PositionCodes(window, heads, rib_hidden, rank)
        self.gate_dwc = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if gate == "DWC" else None
        self.gate = nn.Linear(dim, inner) if gate is not None else None
        self.out = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        pos_q, pos_k = self.codes()
        out = window_attention(self.qkv(x), pos_q, pos_k, self.window, self.heads, self.shift)
        if self.gate is not None:
            gated = x if self.gate_dwc is None else channels_first(self.gate_dwc, x)
            out = out * torch.sigmoid(self.gate(gated))
        y: Tensor = self.out(out)
        return y


class FFN(nn.Module):
    """LayerNorm (or none) and ConvFFN: (B, H, W, C) -> (B, H, W, out), without a residual."""

    def __init__(self, dim: int, hidden: int, out: int, norm: Norm | None) -> None:
        super().__init__()
        self.norm = norm
        self.proj = nn.Linear(dim, hidden)
        self.dwc = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.last = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is not None:
            x = self.norm(x)
        u = F.gelu(self.proj(x))
        u = u + F.gelu(channels_first(self.dwc, u))
        y: Tensor = self.last(u)
        return y


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
        passed, head = self.ffn(x).tensor_split([self.dim], dim=-1)
        dynamic = self.expand(F.gelu(self.squeeze(head.mean((1, 2))))).reshape(-1, 1, 3, 3)  # (B*P, 1, 3, 3)
        head = head.permute(0, 3, 1, 2)
        images = head.flatten(0, 1)[None]  # (1, B*P, H, W): one group per channel and image
        mixed = F.conv2d(images, dynamic, padding=1, groups=dynamic.shape[0]).reshape(head.shape)
        mixed = mixed + F.conv2d(head, kernel, padding=kernel.shape[-1] // 2)
        y: Tensor = passed + self.aggr(mixed.permute(0, 2, 3, 1))
        return y


class Deployed(nn.Module, ABC):
    """What both networks share: RGB (B, 3, H, W) in 0..1 -> (B, 3, rH, rW), not clamped; the official test pipeline."""

    def __init__(self, config: NetworkConfig, upsampler: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv2d(3, config.dim, 3, padding=1)
        self.norm = Norm(config.dim, affine=True)
        self.last = nn.Conv2d(config.dim, config.dim, 3, padding=1)
        self.upsampler = upsampler

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The blocks: (B, H, W, C) -> (B, H, W, C)."""

    def network(self, picture: Tensor) -> Tensor:
        shallow = self.first(picture).permute(0, 2, 3, 1)
        x = self.features(shallow)
        x = shallow + channels_first(self.last, self.norm(x))
        y: Tensor = self.upsampler(x.permute(0, 3, 1, 2), picture)
        return y

    def forward(self, picture: Tensor) -> Tensor:
        return self.network(picture)


class DeployedSSTBlock(nn.Module):
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


class DeployedSST(Deployed):
    """SST in its deployment form; see `Deployed`."""

    def __init__(self, config: NetworkConfig, upsampler: nn.Module, blocks: list[DeployedSSTBlock]) -> None:
        super().__init__(config, upsampler)
        self.blocks = nn.ModuleList(blocks)

    def features(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class DeployedESCBlock(nn.Module):
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


class DeployedESC(Deployed):
    """ESC-RIB in its deployment form, with the completion of the picture to whole windows; see `Deployed`."""

    def __init__(
        self, config: NetworkConfig, upsampler: nn.Module, blocks: list[DeployedESCBlock], kernel: Tensor
    ) -> None:
        super().__init__(config, upsampler)
        self.blocks = nn.ModuleList(blocks)
        self.kernel = nn.Parameter(kernel)

    def features(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, self.kernel)
        return x

    def forward(self, picture: Tensor) -> Tensor:
        height, width = picture.shape[-2:]
        y = self.network(pad_to_windows(picture, self.config.windows[0]))
        return y[..., : self.config.scale * height, : self.config.scale * width]
