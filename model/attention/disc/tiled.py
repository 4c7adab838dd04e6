"""`disc_attention` with memory linear in the tokens, in plain PyTorch: every device, every dtype, and the backward pass of all forms.

The picture's queries go tile by tile, each with the text, the pooled keys and a square of keys around the tile; text queries some rows
at a time with all tokens. `backward` recomputes each tile, so nothing of the size of the scores of a layer is ever stored.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from flashrib.model.attention.disc.reference import Grid, attend

TILE = 16  # side of a tile of queries, in tokens
TEXT_ROWS = 128  # text queries of a pass

Pass = tuple[Tensor, Tensor, Tensor | None]


def passes(grid: Grid, text: int, radius: int, pooled: int, device: torch.device, tile: int = TILE) -> Iterator[Pass]:
    """Cut the attention: (queries, keys, mask or None), indices of tokens (M,) and (N,), mask (M, N), each query exactly once."""
    height, width = grid
    n = text + height * width
    everything = torch.arange(n + pooled, device=device)
    for first in range(0, text, TEXT_ROWS):
        yield everything[first : min(first + TEXT_ROWS, text)], everything[:n], None
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            y, x = _area(top, min(top + tile, height), left, min(left + tile, width), device)
            reach = radius - 1
            key_y, key_x = _area(
                max(top - reach, 0),
                min(top + tile + reach, height),
                max(left - reach, 0),
                min(left + tile + reach, width),
                device,
            )
            disc = (y[:, None] - key_y) ** 2 + (x[:, None] - key_x) ** 2 < radius * radius
            keys = torch.cat((everything[:text], text + key_y * width + key_x, everything[n:]))
            mask = torch.ones(len(y), len(keys), dtype=torch.bool, device=device)
            mask[:, text : text + len(key_y)] = disc
            yield text + y * width + x, keys, mask


def _area(top: int, bottom: int, left: int, right: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = torch.arange(top, bottom, device=device), torch.arange(left, right, device=device)
    return rows.repeat_interleave(len(columns)), columns.repeat(len(rows))


def disc_attention_tiled(
    q: Tensor, k: Tensor, v: Tensor, grid: Grid, text: int, radius: int, scale: float, pooled: int
) -> tuple[Tensor, Tensor]:
    """See `flashrib.model.attention.disc.disc_attention`."""
    n = q.shape[1]
    parts, sums, order = [], [], []
    for queries, keys, mask in passes(grid, text, radius, pooled, q.device):
        out, lse = attend(q[:, queries], k[:, keys], v[:, keys], scale, mask)
        parts.append(out)
        sums.append(lse)
        order.append(queries)
    back = torch.empty(n, dtype=torch.int64, device=q.device)
    back[torch.cat(order)] = torch.arange(n, device=q.device)
    return torch.cat(parts, 1)[:, back], torch.cat(sums, 2)[:, :, back]


def disc_attention_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Grid,
    text: int,
    radius: int,
    scale: float,
    pooled: int,
    grad_out: Tensor,
    grad_lse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v by recomputation of each tile; sums over tiles in float32 at least."""
    wide = torch.promote_types(q.dtype, torch.float32)
    dq, dk, dv = (torch.zeros(x.shape, dtype=wide, device=x.device) for x in (q, k, v))
    for queries, keys, mask in passes(grid, text, radius, pooled, q.device):
        with torch.enable_grad():
            inputs = [x[:, i].detach().requires_grad_() for x, i in ((q, queries), (k, keys), (v, keys))]
            results = attend(inputs[0], inputs[1], inputs[2], scale, mask)
        found = torch.autograd.grad(results, inputs, (grad_out[:, queries], grad_lse[:, :, queries]))
        for total, index, part in zip((dq, dk, dv), (queries, keys, keys), found, strict=True):
            total.index_add_(1, index, part.to(wide))
    return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)
