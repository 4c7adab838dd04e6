"""Fibottention for a CUDA GPU: products by the library, everything between them in fused passes, attention by our kernel."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flashrib.model.architectures.fibottention_vit import deploy
from flashrib.model.architectures.fibottention_vit.deploy import DeployedFibottention
from flashrib.model.architectures.fibottention_vit.fold import fold
from flashrib.model.architectures.fibottention_vit.network import LAYER_NORM_EPS, FibottentionViT
from flashrib.model.attention.fibonacci import offset_attention
from flashrib.model.gpu.tokens import add_norm, gelu, norm


class Product(nn.Module):
    """A linear layer as buffers."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("weight", layer.weight.detach().to(dtype))
        self.register_buffer("bias", layer.bias.detach().to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Block(nn.Module):
    """x and its LayerNorm -> the same for the next block; the normalised maps are not kept."""

    offsets: Tensor

    def __init__(self, block: deploy.Block, dtype: torch.dtype) -> None:
        super().__init__()
        self.config = block.config
        self.qkv, self.proj = Product(block.qkv, dtype), Product(block.proj, dtype)
        self.fc1, self.fc2 = Product(block.mlp.fc1, dtype), Product(block.mlp.fc2, dtype)
        self.register_buffer("offsets", block.offsets)

    def forward(self, x: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        out = offset_attention(self.qkv(normal), self.offsets, self.config.heads, self.config.mask_mode)
        x, normal = add_norm(x, self.proj(out), LAYER_NORM_EPS)
        return add_norm(x, self.fc2(gelu(self.fc1(normal))), LAYER_NORM_EPS)


class LastBlock(nn.Module):
    """x and its LayerNorm -> the class token (B, C) behind the last block."""

    def __init__(self, block: deploy.LastBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = block.heads
        self.q, self.kv, self.proj = (Product(layer, dtype) for layer in (block.q, block.kv, block.proj))
        self.fc1, self.fc2 = Product(block.mlp.fc1, dtype), Product(block.mlp.fc2, dtype)

    def forward(self, x: Tensor, normal: Tensor) -> Tensor:
        batch, tokens, dim = x.shape
        q = self.q(normal[:, 0]).reshape(batch, self.heads, 1, -1)
        k, v = self.kv(normal).reshape(batch, tokens, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0).reshape(batch, dim)
        token, normal = add_norm(x[:, 0].contiguous(), self.proj(out), LAYER_NORM_EPS)
        y: Tensor = token + self.fc2(gelu(self.fc1(normal)))
        return y


class GpuFibottention(nn.Module):
    """See `flashrib.model.gpu.gpu_network`: pictures (B, 3, S, S), RGB in 0..1 -> logits (B, K)."""

    mean: Tensor
    inverse_std: Tensor
    patch: Tensor
    class_token: Tensor
    positions: Tensor

    def __init__(self, folded: DeployedFibottention, dtype: torch.dtype) -> None:
        super().__init__()
        self.config, self.dtype = folded.config, dtype
        buffers: dict[str, Any] = {
            "mean": folded.mean.float(),
            "inverse_std": folded.inverse_std.float(),
            "patch": folded.patch.weight.flatten(1).to(dtype),
            "class_token": folded.class_token.to(dtype),
            "positions": folded.positions.to(dtype),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value.detach())
        self.blocks = nn.ModuleList(Block(block, dtype) for block in folded.blocks)  # type: ignore[arg-type]  # a ModuleList forgets what it holds
        self.last = LastBlock(folded.last, dtype)
        self.norm = folded.norm.to(dtype)
        self.head = None if folded.head is None else Product(folded.head, dtype)
        self.requires_grad_(False)

    def forward(self, picture: Tensor) -> Tensor:
        config, batch = self.config, picture.shape[0]
        values = ((picture.float() - self.mean) * self.inverse_std).to(self.dtype)
        grid, side = config.grid, config.patch
        patches = (
            values.view(batch, 3, grid, side, grid, side).permute(0, 2, 4, 1, 3, 5).reshape(batch, grid * grid, -1)
        )
        x = patches.new_empty(batch, config.patches + 1, config.dim)
        x[:, :1] = self.class_token
        torch.add(F.linear(patches, self.patch), self.positions, out=x[:, 1:])
        normal = norm(x, LAYER_NORM_EPS)
        for block in self.blocks:
            x, normal = block(x, normal)
        token: Tensor = self.norm(self.last(x, normal))
        return (token if self.head is None else self.head(token)).to(picture.dtype)


def gpu(network: FibottentionViT, dtype: torch.dtype) -> GpuFibottention:
    """See `flashrib.model.gpu.gpu_network`."""
    return GpuFibottention(fold(network, dtype=torch.float64), dtype)
