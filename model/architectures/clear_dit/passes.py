"""The steps between the products of CLEAR: plain PyTorch, and one Triton kernel each on a CUDA GPU in 16 bit."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.architectures.clear_dit.network import EPS, bounded, modulated, rotate
from flashrib.model.attention.disc import Grid, pool_tokens

Norms = tuple[Tensor, Tensor]


def fused(x: Tensor) -> bool:
    """Whether the kernels take it."""
    return x.is_cuda and x.dtype in (torch.float16, torch.bfloat16)


def modulate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm over C of (B, n, C), times 1 + scale (B, C), plus shift (B, C)."""
    if not fused(x):
        return modulated(x, scale, shift)
    from flashrib.model.architectures.clear_dit.kernels import modulate_kernel

    batch, n, dim = x.shape
    out = x.new_empty(batch, n, dim)
    block = 1 << (dim - 1).bit_length()
    modulate_kernel[(batch * n,)](
        x,
        scale,
        shift,
        out,
        n,
        x.stride(0),
        scale.stride(0),
        C=dim,
        BLOCK=block,
        EPS=EPS,
        num_warps=8 if block > 2048 else 4,
    )
    return out


def add_gated(x: Tensor, gate: Tensor, y: Tensor, more: Tensor | None = None) -> Tensor:
    """x + gate (B, C) * (y + more); float16 within its range. On a GPU in the place of y."""
    if not fused(x):
        return bounded(x + gate[:, None] * (y if more is None else y + more))
    from flashrib.model.architectures.clear_dit.kernels import add_gated_kernel

    batch, n, dim = y.shape
    block = 1 << (dim - 1).bit_length()
    add_gated_kernel[(batch * n,)](
        x, gate, y, more, n, x.stride(0), gate.stride(0), C=dim, BLOCK=block, num_warps=8 if block > 2048 else 4
    )
    return y


def norm_and_rotate(
    joint: Tensor, cos: Tensor, sin: Tensor, image: Norms, text_norms: Norms, text: int, pooled: int
) -> tuple[Tensor, Tensor, Tensor]:
    """RMS norm of the heads of q and k, with weights of their own for text, and their rotation.

    Args:
        joint: (B, n, 3, h, D), or (B, n + pooled, 3, h, D) on a GPU, where it is changed in place.
        cos: (n, D/2), float32.
        sin: (n, D/2), float32.
        image: weights (D) of q and k for the tokens from `text` on, float32.
        text_norms: weights (D) of q and k for the first tokens.
        text: number of text tokens.
        pooled: number of pooled keys.

    Returns:
        q (B, n, h, D), k and v (B, n [+ pooled], h, D).
    """
    if not fused(joint):
        q, k, v = joint.unbind(2)
        both = [_plain(x, cos, sin, image[i], text_norms[i], text) for i, x in enumerate((q, k))]
        return both[0], both[1], v
    from flashrib.model.architectures.clear_dit.kernels import norm_and_rotate_kernel

    batch, rows, _, heads, dim = joint.shape
    n = rows - pooled
    norm_and_rotate_kernel[(batch * n, 2)](
        joint, cos, sin, *image, *text_norms, n, rows, text, HEADS=heads, D=dim, BLOCK=1 << (heads - 1).bit_length(), EPS=EPS,
        num_warps=4,
    )  # fmt: skip
    q, k, v = joint.unbind(2)
    return q[:, :n], k, v


def _plain(x: Tensor, cos: Tensor, sin: Tensor, image: Tensor, words: Tensor, text: int) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    # a division: torch's exporter makes RMSNormalization of rsqrt from opset 23 on, which cannot be typed apart from its weight
    wide = wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + EPS)
    if words is not image:
        wide = torch.cat((wide[:, :text] * words.to(wide.dtype), wide[:, text:] * image.to(wide.dtype)), 1)
    else:
        wide = wide * image.to(wide.dtype)
    return rotate(wide, cos, sin).to(x.dtype)


def pool_into(k: Tensor, v: Tensor, weight: Tensor, grid: Grid, text: int) -> None:
    """Write the pooled keys and values behind the others, where there is room for them: k, v (B, n + pooled, h, D)."""
    n = text + grid[0] * grid[1]
    if not fused(k):
        for x in (k, v):
            x[:, n:] = pool_tokens(x[:, :n], weight, grid, text)
        return
    from flashrib.model.architectures.clear_dit.kernels import pool_kernel

    batch, rows, heads, dim = k.shape
    factor, block = weight.shape[0], 512
    for x in (k, v):
        pool_kernel[(batch * (rows - n), -(-heads * dim // block))](
            x,
            weight,
            grid[1],
            text,
            n,
            rows - n,
            x.stride(0),
            x.stride(1),
            C=heads * dim,
            F=factor,
            BLOCK=block,
            num_warps=4,
        )


def gelu_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU (tanh) of a linear layer; on a GPU as the epilogue of the product."""
    if not fused(x):
        return F.gelu(F.linear(x, weight, bias), approximate="tanh")
    y: Any = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
    out: Tensor = y.view(*x.shape[:-1], weight.shape[0])
    return out
