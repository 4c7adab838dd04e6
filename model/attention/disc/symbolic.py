"""`disc_attention` and `pool_tokens` as single nodes of an ONNX graph; only used while a network is exported.

The nodes `flashrib::DiscAttention` and `flashrib::PoolTokens` carry what is fixed as attributes and the size of the grid as inputs; their
bodies, model-local functions, are attached by `flashrib.export`.
"""

import torch
from torch import Tensor

from flashrib.model.attention.disc.reference import Grid


def _grid(grid: Grid) -> Tensor:
    """(H, W) as a tensor of the graph; the sides may be symbolic."""
    return torch.stack([torch.scalar_tensor(side, dtype=torch.int64) for side in grid])


def disc_attention_symbolic(
    q: Tensor, k: Tensor, v: Tensor, grid: Grid, text: int, radius: int, scale: float, pooled: int
) -> tuple[Tensor, Tensor]:
    """See `flashrib.model.attention.disc.disc_attention`; the number of pooled keys is what k has beyond q."""
    batch, n, heads, _ = q.shape
    out, lse = torch.onnx.ops.symbolic_multi_out(
        "flashrib::DiscAttention",
        (q, k, v, _grid(grid)),
        attrs={"text": text, "radius": radius, "scale": scale},
        dtypes=(q.dtype, torch.float32),
        shapes=(q.shape, (batch, heads, n)),
        version=1,
    )
    return out, lse


def pool_tokens_symbolic(x: Tensor, weight: Tensor, grid: Grid, text: int) -> Tensor:
    """See `flashrib.model.attention.disc.reference.pool_tokens`."""
    factor = round(weight.numel() ** 0.5)
    batch, _, heads, dim = x.shape
    return torch.onnx.ops.symbolic(
        "flashrib::PoolTokens",
        (x, weight.reshape(factor, factor), _grid(grid)),
        attrs={"text": text, "factor": factor},
        dtype=x.dtype,
        shape=(batch, (grid[0] // factor) * (grid[1] // factor), heads, dim),
        version=1,
    )
