"""Forms of the layers that train fast on a CUDA GPU: same parameters, same results up to rounding, other arithmetic.

Maps stay channels-last, 1x1 convolutions are matmuls in 16 bit, the depthwise convolution has a kernel of its own in both
directions, and the attention kernel takes the gate's logits. Widths that a GPU reads badly are padded by zeros in the weights: heads to
multiples of 8 channels, hidden channels likewise. Zero channels give and get nothing, so gradients are those of the real ones.
"""

import importlib.util
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import pad

from flashrib.model.attention.window import window_attention
from flashrib.model.position import constant_codes

if TYPE_CHECKING:
    from flashrib.model.layers import ConvFFN, WindowAttention

HAS_TRITON = importlib.util.find_spec("triton") is not None
MULTIPLE = 8  # 16 bytes in 16 bit


def usable(x: Tensor) -> bool:
    """Whether these forms take a map."""
    return x.is_cuda and x.dtype != torch.float64 and HAS_TRITON


def _last(x: Tensor) -> Tensor:
    """(B, C, H, W) as a channels-last map, in the dtype of autocast where that is on, in 16 bit with channels completed to `MULTIPLE`."""
    if torch.is_autocast_enabled("cuda"):
        x = x.to(torch.get_autocast_dtype("cuda"))
    x = x.permute(0, 2, 3, 1)
    return (x if x.dtype == torch.float32 else pad(x, (0, -x.shape[-1] % MULTIPLE))).contiguous()


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1x1 convolution of (B, H, W, C), C at least the columns of `weight` (out, in): (B, H, W, out), in 16 bit completed to `MULTIPLE`.

    In float32 a convolution, which PyTorch computes in TF32 unless told otherwise.
    """
    if x.dtype == torch.float32:
        weight = pad(weight, (0, x.shape[-1] - weight.shape[1]))
        return F.conv2d(x.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
    missing = -weight.shape[0] % MULTIPLE
    return F.linear(x, pad(weight, (0, x.shape[-1] - weight.shape[1], 0, missing)), pad(bias, (0, missing)))


def _first(x: Tensor, channels: int) -> Tensor:
    """A channels-last map without the channels that complete it, as (B, C, H, W)."""
    return x[..., :channels].permute(0, 3, 1, 2)


def _affine(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight as a matrix and bias of a 1x1 convolution."""
    assert isinstance(module, nn.Conv2d)
    assert module.bias is not None
    return module.weight.flatten(1), module.bias


def _depthwise(x: Tensor, conv: nn.Module) -> Tensor:
    """Depthwise 3x3 convolution of (B, H, W, C), C at least the convolution's channels: those beyond are zero."""
    from flashrib.model.depthwise import depthwise3x3

    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    missing = x.shape[-1] - conv.in_channels
    return depthwise3x3(x, pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, missing)), pad(conv.bias, (0, missing)))


def _widen(x: Tensor, heads: int, missing: int) -> Tensor:
    """Append `missing` zeros to each of `heads` stretches of the first dimension."""
    if not missing:
        return x
    stretches = x.reshape(heads, -1, *x.shape[1:])
    return pad(stretches, (0, 0) * (x.dim() - 1) + (0, missing)).flatten(0, 1)


def attention(layer: "WindowAttention", x: Tensor) -> Tensor:
    """`WindowAttention.forward`: (B, C, H, W) -> (B, C, H, W), both channels-last in memory."""
    config = layer.config
    x, heads = _last(x), config.heads
    missing = -config.head_dim % MULTIPLE
    weight, bias = layer.scaled_qkv()
    qkv = _pointwise(x, _widen(weight.flatten(1), 3 * heads, missing), _widen(bias, 3 * heads, missing))
    with torch.autocast("cuda", enabled=False):
        codes = constant_codes(*layer.hidden_terms(), layer.to_q * config.rank**-0.5, layer.to_k)
    gate = None
    if layer.gate is not None:
        *first, last = [module for module in layer.gate if isinstance(module, nn.Conv2d)]
        gated = _depthwise(x, first[0]) if first else x
        gate = _pointwise(gated, *(_widen(p, heads, missing) for p in _affine(last)))
    out = window_attention(qkv, *codes, config.window, heads, config.shift, gate=gate, form="triton")
    weight, bias = _affine(layer.to_out)
    return _first(_pointwise(out, _widen(weight.mT, heads, missing).mT, bias), config.dim)


def ffn(layer: "ConvFFN", x: Tensor) -> Tensor:
    """`ConvFFN.forward`: (B, C, H, W) -> (B, C, H, W), both channels-last in memory."""
    from flashrib.model.depthwise import ffn_depthwise3x3

    conv, x = layer.dwc, _last(x)
    u = _pointwise(x, *_affine(layer.proj))
    assert conv.bias is not None
    missing = u.shape[-1] - conv.in_channels
    u = ffn_depthwise3x3(u, pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, missing)), pad(conv.bias, (0, missing)))
    return _first(_pointwise(u, *_affine(layer.get_submodule(layer.last))), layer.proj.in_channels)


def gated_ffn(first: nn.Sequential, last: nn.Conv2d, dropout: nn.Module, x: Tensor) -> Tensor:
    """`GatedFFN.forward` of SST-Real: (B, C, H, W) -> (B, C, H, W), both channels-last in memory."""
    weight, bias = _affine(first[0])
    half = last.in_channels
    a, b = _depthwise(_pointwise(_last(x), weight, bias), first[1])[..., : 2 * half].chunk(2, dim=-1)
    return _first(_pointwise(dropout(F.silu(a) * b), *_affine(last)), last.out_channels)
