"""Definition of `disc_attention` and `pool_tokens`: plain PyTorch, any dtype, differentiable, memory quadratic in the tokens."""

import torch
from torch import Tensor

Grid = tuple[int, int]


def disc_mask(grid: Grid, text: int, radius: int, pooled: int = 0, device: torch.device | None = None) -> Tensor:
    """Which key each query sees: (n, n + pooled), bool, n = text + H*W (arXiv 2412.16112; predicate of the official code).

    Tokens are `text` text tokens, then the picture's row-major; pooled keys come last. A text query sees all n tokens and no pooled
    one; a picture's query sees the text, all pooled keys and the tokens at a distance strictly below `radius`.

    Args:
        grid: (H, W) in tokens.
        text: number of text tokens.
        radius: of the disc in tokens.
        pooled: number of pooled keys.
        device: of the mask.
    """
    height, width = grid
    rows = torch.arange(height, device=device).repeat_interleave(width)
    columns = torch.arange(width, device=device).repeat(height)
    disc = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2 < radius * radius
    n = text + height * width
    mask = torch.ones(n, n + pooled, dtype=torch.bool, device=device)
    mask[:text, n:] = False
    mask[text:, text:n] = disc
    return mask


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Softmax attention over the keys that the mask keeps, all token-major.

    Args:
        q: (B, M, h, D).
        k: (B, N, h, D).
        v: (B, N, h, D).
        scale: of the logits.
        mask: (M, N), True where a query sees a key; None: everywhere.

    Returns:
        out (B, M, h, D), and lse (B, h, M): natural logarithm of the sum of the exponentials, float32 at least.
    """
    logits = torch.einsum("bmhd,bnhd->bhmn", q, k) * scale
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    wide = logits.double() if logits.dtype == torch.float64 else logits.float()
    lse = torch.logsumexp(wide, -1)
    weights = torch.exp(wide - lse[..., None]).to(v.dtype)
    return torch.einsum("bhmn,bnhd->bmhd", weights, v), lse


def disc_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, grid: Grid, text: int, radius: int, scale: float, pooled: int
) -> tuple[Tensor, Tensor]:
    """See `flashrib.model.attention.disc.disc_attention`."""
    return attend(q, k, v, scale, disc_mask(grid, text, radius, pooled, q.device))


def pool_tokens(x: Tensor, weight: Tensor, grid: Grid, text: int) -> Tensor:
    """Weighted sums of f x f neighbouring tokens of the picture; the weights need not add up to 1.

    Args:
        x: (B, text + H*W, h, D), rotated keys or values.
        weight: f*f numbers in any shape (the checkpoints' is (1, 1, 1, f, 1, f, 1)), shared by heads and channels.
        grid: (H, W) in tokens, multiples of f.
        text: number of text tokens, which are not pooled.

    Returns:
        (B, H/f * W/f, h, D) in the dtype of `x`; summed in float32 at least.
    """
    height, width = grid
    factor = round(weight.numel() ** 0.5)
    batch, _, heads, dim = x.shape
    image = x[:, text : text + height * width]
    cells = image.reshape(batch, height // factor, factor, width // factor, factor, heads, dim)
    wide = torch.promote_types(torch.float32, torch.promote_types(x.dtype, weight.dtype))
    sums = torch.einsum("bifjghd,fg->bijhd", cells.to(wide), weight.reshape(factor, factor).to(wide))
    return sums.reshape(batch, -1, heads, dim).to(x.dtype)
