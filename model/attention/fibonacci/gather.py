"""`offset_attention` in linear memory and plain PyTorch: for every slot, +o or -o of each head, one row of k and of v for each query.

Differentiable, any device and dtype; statistics in float32 at least. Under zero_logit a key that is left out has weight e^0, so with
m >= 0 the largest logit that counts

    out = (sum over kept keys of (e^(s-m) - e^-m) v  +  e^-m * sum of all v) / (sum over kept keys of (e^(s-m) - e^-m)  +  (N+1) e^-m).
"""

import torch
from torch import Tensor


def offset_attention_gather(qkv: Tensor, offsets: Tensor, num_heads: int, mask_mode: str) -> Tensor:
    """See `flashrib.model.attention.fibonacci.offset_attention`; `mask_mode` not "dense"."""
    batch, tokens, channels = qkv.shape
    patches = tokens - 1
    wide = torch.promote_types(qkv.dtype, torch.float32)
    q, k, v = qkv.view(batch, tokens, 3, num_heads, -1).to(wide).permute(2, 0, 3, 1, 4)  # (B, heads, N+1, D) each
    first = torch.softmax(q[:, :, :1] @ k.transpose(-1, -2), dim=-1) @ v  # the class token sees all
    queries = q[:, :, 1:]
    rows, kept = slots(offsets, patches)

    def taken(x: Tensor, slot: int) -> Tensor:
        """Row of every patch query's key in this slot: (B, heads, N, D)."""
        return x[:, :, 1:].flatten(1, 2).index_select(1, rows[slot]).view_as(queries)

    scores = [(queries * k[:, :, :1]).sum(-1)]  # of the class token, then of the slots, (B, heads, N) each
    scores += [(queries * taken(k, slot)).sum(-1).masked_fill(~kept[slot], -torch.inf) for slot in range(rows.shape[0])]
    highest = torch.stack([s.detach() for s in scores]).amax(0)
    rest = torch.zeros_like(highest)
    if mask_mode == "zero_logit":
        highest = highest.clamp_min(0)
        rest = torch.exp(-highest)
    weights = [torch.exp(s - highest) for s in scores]
    weights = [weights[0] - rest, *(w - rest * inside for w, inside in zip(weights[1:], kept, strict=True))]
    total = torch.stack(weights).sum(0) + rest * tokens
    out = weights[0][..., None] * v[:, :, :1] + rest[..., None] * v.sum(2, keepdim=True)
    for slot in range(rows.shape[0]):
        out = out + weights[slot + 1][..., None] * taken(v, slot)
    out = torch.cat([first, out / total[..., None]], dim=2).to(qkv.dtype)
    return out.transpose(1, 2).reshape(batch, tokens, channels // 3)


def slots(offsets: Tensor, patches: int) -> tuple[Tensor, Tensor]:
    """Keys of every patch query, slot by slot: +o for each offset, then -o; offset 0 counts once.

    Returns:
        rows (2*M, heads*N) int64 into the patches of all heads, one after the other, and which of them are meant, (2*M, heads, N) bool.
    """
    heads = offsets.shape[0]
    patch = torch.arange(patches, device=offsets.device)
    # -0 lies beyond the end: the patch itself is among the first already
    back = torch.where(offsets == 0, patches, -offsets)
    key = patch + torch.cat([offsets, back], dim=1).T[:, :, None]  # (2*M, heads, N)
    kept = (key >= 0) & (key < patches)
    rows = key.clamp(0, patches - 1) + patches * torch.arange(heads, device=offsets.device)[:, None]
    return rows.flatten(1), kept
