"""Fibottention in its deployment form: no affine LayerNorm, no biases of v, and only the class token's row in the last block."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.fibottention_vit.config import FibottentionConfig
from flashrib.model.architectures.fibottention_vit.network import LAYER_NORM_EPS, layer_offsets
from flashrib.model.attention.fibonacci import offset_attention
from flashrib.model.deploy import Deployed


def normalise(x: Tensor) -> Tensor:
    """LayerNorm over the channels, without its affine part."""
    return F.layer_norm(x, x.shape[-1:], None, None, LAYER_NORM_EPS)


class MLP(nn.Module):
    """LayerNorm, linear, GELU, linear: (B, T, C) -> same, without the residual."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(normalise(x))))
        return y


class Block(nn.Module):
    """A block but the last: (B, N+1, C) -> same."""

    offsets: Tensor

    def __init__(self, config: FibottentionConfig, depth: int) -> None:
        super().__init__()
        self.config = config
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.mlp = MLP(config.dim, config.hidden)
        self.register_buffer("offsets", layer_offsets(config, depth))

    def forward(self, x: Tensor) -> Tensor:
        out = offset_attention(self.qkv(normalise(x)), self.offsets, self.config.heads, self.config.mask_mode)
        x = x + self.proj(out)
        y: Tensor = x + self.mlp(x)
        return y


class LastBlock(nn.Module):
    """The last block, of which only the class token is read: (B, N+1, C) -> (B, C). It sees all tokens, so no mask plays a part."""

    def __init__(self, config: FibottentionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q = nn.Linear(config.dim, config.dim)
        self.kv = nn.Linear(config.dim, 2 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.mlp = MLP(config.dim, config.hidden)

    def forward(self, x: Tensor) -> Tensor:
        normal = normalise(x)
        batch, tokens, dim = x.shape
        q = self.q(normal[:, 0]).reshape(batch, self.heads, 1, -1)
        k, v = self.kv(normal).reshape(batch, tokens, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, N+1, D)
        out = torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v
        token = x[:, 0] + self.proj(out.reshape(batch, dim))
        y: Tensor = token + self.mlp(token)
        return y


class DeployedFibottention(Deployed):
    """Picture (B, 3, S, S), RGB in 0..1 -> logits (B, K), or the normalised class token (B, C) where there are no classes."""

    config: FibottentionConfig
    mean: Tensor
    inverse_std: Tensor

    def __init__(self, config: FibottentionConfig) -> None:
        super().__init__(config)
        self.register_buffer("mean", torch.zeros(3, 1, 1))
        self.register_buffer("inverse_std", torch.ones(3, 1, 1))
        self.patch = nn.Conv2d(3, config.dim, config.patch, config.patch, bias=False)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.dim))  # with its position
        self.positions = nn.Parameter(torch.zeros(1, config.patches, config.dim))  # with the bias of the patches
        self.blocks = nn.ModuleList(Block(config, depth) for depth in range(config.depth - 1))
        self.last = LastBlock(config)
        self.norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS, elementwise_affine=not config.classes)
        self.head = nn.Linear(config.dim, config.classes) if config.classes else None

    def tokens(self, picture: Tensor) -> Tensor:
        """Picture -> tokens (B, N+1, C), positions added."""
        x = self.patch((picture - self.mean) * self.inverse_std).flatten(2).transpose(1, 2) + self.positions
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)

    def forward(self, picture: Tensor) -> Tensor:
        x = self.tokens(picture)
        for block in self.blocks:
            x = block(x)
        token: Tensor = self.norm(self.last(x))
        return token if self.head is None else self.head(token)
