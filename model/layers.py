"""Layers shared by networks with RIB window attention, with the official names of their parameters."""

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model import cuda_layers
from flashrib.model.attention.window import window_attention
from flashrib.model.config import AttentionConfig
from flashrib.model.rib import coordinate_features, position_codes

LAYER_NORM_EPS = 1e-6
RIB_STD = 0.05  # of fresh weights of the bias MLP, as in the official code


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context in which nothing is cast, so that results keep the dtype of the weights; on PyTorch's meta device there is no autocast."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


class LayerNorm(nn.Module):
    """LayerNorm over the channels of each pixel (biased variance, eps 1e-6): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, LAYER_NORM_EPS)
        return x.permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    """Window attention with RIB and an optional gate: (B, C, H, W), already normalised -> (B, C, H, W).

    The gate is sigmoid(conv(x)) on the input, multiplied onto the attention's output before `to_out`.

    Attributes:
        plainly: never take the form for GPUs, since somebody looks at the convolutions one by one.
    """

    plainly = False

    columns: Tensor
    rows: Tensor

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        dim, (rows, columns) = config.dim, config.window
        heads, hidden, rank = config.heads, config.rib_hidden, config.rank
        features = 2 + 4 * config.rib_freqs
        self.to_hidden = nn.Parameter(torch.randn(features, hidden) * RIB_STD)
        self.hidden_b = nn.Parameter(torch.zeros(1, hidden))
        self.to_q = nn.Parameter(torch.randn(heads, hidden, rank) * RIB_STD)
        self.to_k = nn.Parameter(torch.randn(heads, hidden, rank) * RIB_STD)
        self.register_buffer("rows", coordinate_features(rows, config.rib_freqs), persistent=False)
        self.register_buffer("columns", coordinate_features(columns, config.rib_freqs), persistent=False)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.to_out = nn.Conv2d(dim, dim, 1)
        self.gate: nn.Sequential | None = None
        if config.gate == "Linear":
            self.gate = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.Sigmoid())
        elif config.gate == "DWC":
            self.gate = nn.Sequential(
                nn.Conv2d(dim, dim, 3, padding=1, groups=dim), nn.Conv2d(dim, dim, 1), nn.Sigmoid()
            )

    def hidden_terms(self) -> tuple[Tensor, Tensor]:
        """Terms of the rows (Wh, M) and of the columns (Ww, M) in the hidden layer of the bias MLP; see `model.rib`."""
        rows = self.rows @ self.to_hidden[1::2] + self.hidden_b
        columns = self.columns @ self.to_hidden[0::2]
        return rows, columns

    def position_codes(self) -> tuple[Tensor, Tensor]:
        """pos_q, with R^-1/2, and pos_k, each (heads, N, R), in the parameters' dtype even under autocast."""
        with without_autocast(self.to_hidden):
            rows, columns = self.hidden_terms()
            return position_codes(rows, columns, self.to_q * self.config.rank**-0.5, self.to_k)

    def scaled_qkv(self) -> tuple[Tensor, Tensor]:
        """Weight (3C, C, 1, 1) and bias (3C) of `to_qkv` with D^-1/2 in the rows of q: cheaper than scaling the map."""
        weight, bias = self.to_qkv.weight, self.to_qkv.bias
        assert bias is not None
        scale = torch.ones_like(bias)
        scale[: self.config.inner] = self.config.head_dim**-0.5
        return weight * scale[:, None, None, None], bias * scale

    def forward(self, x: Tensor) -> Tensor:
        return cuda_layers.attention(self, x) if cuda_layers.usable(x) and not self.plainly else self.plain(x)

    def plain(self, x: Tensor) -> Tensor:
        """`forward` as its definition reads, on any device."""
        qkv = F.conv2d(x, *self.scaled_qkv()).permute(0, 2, 3, 1)
        config = self.config
        out = window_attention(qkv, *self.position_codes(), config.window, config.heads, config.shift)
        out = out.permute(0, 3, 1, 2)
        if self.gate is not None:
            out = out * self.gate(x)
        return self.to_out(out)


class ConvFFN(nn.Module):
    """u = gelu(proj(x)); u = u + gelu(dwc(u)); the last 1x1 convolution of u: (B, C, H, W) -> (B, C, H, W).

    `last` names that convolution: SST's checkpoints call it "agg", ESC's "aggr". `plainly` as in `WindowAttention`.
    """

    plainly = False

    def __init__(self, dim: int, hidden: int, last: str) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, hidden, 1)
        self.dwc = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.last = last
        self.add_module(last, nn.Conv2d(hidden, dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        return cuda_layers.ffn(self, x) if cuda_layers.usable(x) and not self.plainly else self.plain(x)

    def plain(self, x: Tensor) -> Tensor:
        """`forward` as its definition reads, on any device."""
        u = F.gelu(self.proj(x))
        u = u + F.gelu(self.dwc(u))
        return self.get_submodule(self.last)(u)
