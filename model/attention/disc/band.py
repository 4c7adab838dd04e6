"""The attention of a band of rows: a part of `disc_attention` on one of several devices."""

import torch
from torch import Tensor

from flashrib.model.attention.disc.blocks import Side
from flashrib.model.attention.disc.op import launch, launch_hopper, not_supported_by_hopper, token_major
from flashrib.model.attention.disc.reference import Grid, attend
from flashrib.model.attention.disc.tiled import TEXT_ROWS, disc_attention_tiled


def disc_attention_band(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grid: Grid,
    text: int,
    radius: int,
    scale: float,
    pooled: int,
    rows: Side,
    text_keys: Side,
) -> tuple[Tensor, Tensor]:
    """`disc_attention` on a band of rows and the rows around it that its discs reach, without gradients.

    Args:
        q: (B, n, h, D), n = text + H*W; queries of the picture outside `rows` may be anything.
        k: (B, n + pooled, h, D).
        v: (B, n + pooled, h, D).
        grid: (H, W) of the band and the rows around it.
        text: number of text tokens, 1 or more.
        radius: of the disc.
        scale: of the logits.
        pooled: number of pooled keys.
        rows: first and last + 1 of the rows whose queries are wanted.
        text_keys: first and last + 1 of the tokens that text queries see: the devices together must count each key once.

    Returns:
        out (B, n, h, D) and lse (B, h, n), as `disc_attention`; outside of text and `rows` undefined.
    """
    facts = (grid, text, radius, scale, pooled)
    if q.is_cuda and q.dtype != torch.float64:
        q, k, v = token_major(q), token_major(k), token_major(v)
        if not_supported_by_hopper(q, k, v, grid, text) or text_keys[1] - text_keys[0] < 64:
            return launch(q, k, v, *facts, text_keys=text_keys)
        return launch_hopper(q, k, v, *facts, rows=rows, text_keys=text_keys)
    out, lse = disc_attention_tiled(q, k, v, *facts)
    for first in range(0, text, TEXT_ROWS):
        some, seen = slice(first, min(first + TEXT_ROWS, text)), slice(*text_keys)
        out[:, some], lse[:, :, some] = attend(q[:, some], k[:, seen], v[:, seen], scale)
    return out, lse
