"""Fibottention in its training form, with timm's names of the parameters of a ViT."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.fibottention_vit.config import FibottentionConfig
from flashrib.model.attention.fibonacci import offset_attention
from flashrib.model.attention.fibonacci.offsets import head_offsets, pack_offsets
from flashrib.model.network import Network

LAYER_NORM_EPS = 1e-6


def layer_offsets(config: FibottentionConfig, depth: int) -> Tensor:
    """Offsets of the heads of block `depth`, (heads, M) int32; none where `mask_mode` is "dense"."""
    if config.mask_mode == "dense":
        return pack_offsets([[]] * config.heads, config.patches)
    offsets = head_offsets(config.patches, config.heads, depth, config.order, config.variant, config.spread)
    return pack_offsets(offsets, config.patches)


def query_scale(config: FibottentionConfig, like: Tensor) -> Tensor:
    """Factors (3*C) of qkv: the scale of the logits for q, 1 for k and v; dtype and device of `like`."""
    scale = like.new_ones(3 * config.dim)
    scale[: config.dim] = config.scale_of_logits
    return scale


class PatchEmbed(nn.Module):
    """Picture (B, 3, H, W) -> patch tokens (B, N, C), row-major."""

    def __init__(self, config: FibottentionConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.dim, config.patch, config.patch)

    def forward(self, picture: Tensor) -> Tensor:
        y: Tensor = self.proj(picture)
        return y.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Attention of one block: (B, N+1, C) -> same, without the residual."""

    offsets: Tensor

    def __init__(self, config: FibottentionConfig, depth: int) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.register_buffer("offsets", layer_offsets(config, depth), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x) * query_scale(self.config, x)
        y: Tensor = self.proj(offset_attention(qkv, self.offsets, self.config.heads, self.config.mask_mode))
        return y


class MLP(nn.Module):
    """Linear, GELU, linear: (B, N+1, C) -> same, without the residual."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class Block(nn.Module):
    """Attention and MLP, each after a LayerNorm and with a residual."""

    def __init__(self, config: FibottentionConfig, depth: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(config, depth)
        self.norm2 = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.mlp = MLP(config.dim, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class FibottentionViT(Network):
    """Picture (B, 3, S, S), RGB in 0..1 -> logits (B, K), or the normalised class token (B, C) where there are no classes."""

    config: FibottentionConfig
    mean: Tensor
    std: Tensor

    def __init__(self, config: FibottentionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.patches + 1, config.dim))
        self.blocks = nn.Sequential(*(Block(config, depth) for depth in range(config.depth)))
        self.norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self.head = nn.Linear(config.dim, config.classes) if config.classes else None
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1), persistent=False)
        self.apply(_initialise)
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.patch_embed((picture - self.mean) / self.std)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        token: Tensor = self.norm(self.blocks(x)[:, 0])
        return token if self.head is None else self.head(token)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
