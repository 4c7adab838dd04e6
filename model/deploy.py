"""Parts of the deployment form of the networks: channels-last maps, constants folded in, nothing left that only training needs.

Each architecture's `fold` makes these modules from the training form; `export` turns them into ONNX. Maps are (B, H, W, C) between the 3x3
convolutions, so that every 1x1 convolution is a matmul and the attention operator reads and writes in place.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.attention.window import window_attention
from flashrib.model.attention.window.symbolic import position_codes_symbolic
from flashrib.model.config import AttentionConfig, NetworkConfig, UpscalerConfig, Window
from flashrib.model.layers import LAYER_NORM_EPS
from flashrib.model.rib import position_codes


def channels_first(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a module that wants (B, C, H, W) to a channels-last map."""
    y: Tensor = conv(x.permute(0, 3, 1, 2))
    return y.permute(0, 2, 3, 1)


def top_left(x: Tensor, height: int, width: int) -> Tensor:
    """Return x[..., :height, :width] of a map that has as many rows and columns, or more.

    That it has is said for torch.export: the result then has these sizes, and not unknown ones (torch 2.11).
    """
    for part, whole in zip((height, width), x.shape[-2:], strict=True):
        torch._check(part <= whole)  # type: ignore[no-untyped-call]  # untyped in torch
    return x[..., :height, :width]


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
    """LayerNorm, window attention, gate and output projection: (B, H, W, C) -> (B, H, W, C), without the residual."""

    def __init__(self, config: AttentionConfig, norm: Norm) -> None:
        super().__init__()
        self.config = config
        dim, inner, gate = config.dim, config.inner, config.gate
        self.norm = norm
        self.qkv = nn.Linear(dim, 3 * inner)
        self.codes = PositionCodes(config.window, config.heads, config.rib_hidden, config.rank)
        self.gate_dwc = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if gate == "DWC" else None
        self.gate = nn.Linear(dim, inner) if gate is not None else None
        self.out = nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        pos_q, pos_k = self.codes()
        config = self.config
        out = window_attention(self.qkv(x), pos_q, pos_k, config.window, config.heads, config.shift)
        if self.gate is not None:
            gated = x if self.gate_dwc is None else channels_first(self.gate_dwc, x)
            out = out * torch.sigmoid(self.gate(gated))
        return self.out(out)


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
        return self.last(u)


class Deployed(nn.Module):
    """A network in its deployment form: the tensors of `config.inputs()` -> the result.

    Attributes:
        config: what the network was made from.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config


class DeployedUpscaler(Deployed, ABC):
    """What the super-resolution networks share: RGB (B, 3, H, W) in 0..1 -> (B, 3, rH, rW), not clamped; the official test pipeline."""

    config: UpscalerConfig

    def __init__(self, config: UpscalerConfig, upsampler: nn.Module) -> None:
        super().__init__(config)
        self.first = nn.Conv2d(3, config.dim, 3, padding=1)
        self.norm = Norm(config.dim, affine=True)
        self.last = nn.Conv2d(config.dim, config.dim, 3, padding=1)
        self.upsampler = upsampler

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """The blocks: (B, H, W, C) -> (B, H, W, C)."""

    def reconstruct(self, picture: Tensor) -> Tensor:
        """The bare network, without what the test pipeline does before and after."""
        shallow = self.first(picture).permute(0, 2, 3, 1)
        x = shallow + channels_first(self.last, self.norm(self.body(shallow)))
        return self.upsampler(x.permute(0, 3, 1, 2), picture)

    def forward(self, picture: Tensor) -> Tensor:
        return self.reconstruct(picture)
