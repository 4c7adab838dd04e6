"""The rival: the official data flow of attention in plain PyTorch, as the paper and the published code have it.

Same weights, same networks, same results as ours; only the attention goes the official way: the map is completed before the 1x1
convolution, the bias MLP runs over all N tokens every time, its codes are concatenated to q and k, v is widened with zeros to the
same head size, and PyTorch's scaled_dot_product_attention does the rest, or the package flash-attn. In float32 here: the official
code rounds q, k and v to bfloat16 before, which is less exact; `--bf16` does that too.
"""

import types

import torch
import torch.nn.functional as F
from torch import Tensor

from flashrib.model.architectures.sst_real.network import GatedFFN
from flashrib.model.attention.window.flash import flash_attention
from flashrib.model.layers import ConvFFN, WindowAttention
from flashrib.model.network import Network


def _features(attention: WindowAttention) -> Tensor:
    """phi, (N, 2 + 4L), x before y."""
    wh, ww = attention.config.window
    columns = attention.columns[None].expand(wh, -1, -1)
    rows = attention.rows[:, None].expand(-1, ww, -1)
    return torch.stack([columns, rows], dim=-1).flatten(0, 1).flatten(1)


def _forward(self: WindowAttention, x: Tensor) -> Tensor:
    config = self.config
    (wh, ww), heads, dim, rank = config.window, config.heads, config.head_dim, config.rank
    gate = 1.0 if self.gate is None else self.gate(x)
    batch, channels, height, width = x.shape
    x = F.pad(x, (0, -width % ww, 0, -height % wh), mode="reflect")
    rows, columns = x.shape[2] // wh, x.shape[3] // ww
    qkv = self.to_qkv(x).view(batch, 3, heads, dim, rows, wh, columns, ww)
    q, k, v = qkv.permute(1, 0, 4, 6, 2, 5, 7, 3).reshape(3, batch * rows * columns, heads, wh * ww, dim)
    hidden = torch.relu(_features(self) @ self.to_hidden + self.hidden_b)
    codes_q, codes_k = hidden @ self.to_q * rank**-0.5, hidden @ self.to_k
    windows = q.shape[0]
    q = torch.cat([q * dim**-0.5, codes_q.expand(windows, -1, -1, -1)], dim=-1)
    k = torch.cat([k, codes_k.expand(windows, -1, -1, -1)], dim=-1)
    v = torch.cat([v, v.new_zeros(*v.shape[:-1], rank)], dim=-1)
    if self.official_dtype is not None:
        q, k, v = (t.to(self.official_dtype) for t in (q, k, v))
    out = self.official_attention(q, k, v)[..., :dim].to(x.dtype)
    out = out.view(batch, rows, columns, heads, wh, ww, dim).permute(0, 3, 6, 1, 4, 2, 5)
    out = out.reshape(batch, channels, rows * wh, columns * ww)[:, :, :height, :width]
    y: Tensor = self.to_out(out * gate)
    return y


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)


def _flash_attn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return flash_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def official_flow(network: Network, dtype: torch.dtype | None = None, package: bool = False) -> Network:
    """Switch the attention of `network` to the official data flow.

    Args:
        network: is changed.
        dtype: what q, k and v are rounded to; None: they stay as they are.
        package: attention by flash-attn, of whichever version is installed, in place of PyTorch's.
    """
    for module in network.modules():
        if isinstance(module, WindowAttention):
            if any(module.config.shift):
                raise ValueError("no official preset shifts its windows, so the rival does not either")
            module.official_dtype = dtype
            module.official_attention = _flash_attn if package else _sdpa
            module.forward = types.MethodType(_forward, module)
        if isinstance(module, ConvFFN | GatedFFN):
            module.plainly = True
    return network
