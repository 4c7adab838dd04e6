"""Parts of folding, training form -> deployment form, equal up to rounding. All of it in float64; the result is cast once at the end.

    bias MLP of RIB             -> tables of rows and columns, evaluated once at load
    D^-1/2                      -> rows of q in qkv
    R^-1/2                      -> the matrix that makes pos_q
    bias of k                   -> dropped: it adds the same number to all logits of a query
    bias of v                   -> bias of the output projection, where no gate multiplies in between
    affine part of a LayerNorm  -> the 1x1 convolution after it, where nothing else reads the normalised map
    width of a head             -> a multiple of `head_multiple`, by zero channels

A LayerNorm in front of a 3x3 convolution keeps its affine part: zero padding happens after the affine, so its bias does not fold
exactly at the picture's border. The gate "DWC" is such a convolution, so a gated attention keeps it too.
"""

import copy
import dataclasses
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.layers import ConvFFN, LayerNorm, WindowAttention
from flashrib.model.network import Network
from flashrib.model.sizes import round_up

Affine = tuple[Tensor, Tensor]  # weight (out, in) and bias (out) of a 1x1 convolution
M = TypeVar("M", bound=nn.Module)
N = TypeVar("N", bound=Network)
D = TypeVar("D", bound=deploy.Deployed)


def expect(kind: type[M], module: nn.Module) -> M:
    """Return `module`, which containers only know as a Module, as what it is."""
    assert isinstance(module, kind), f"{type(module).__name__} where the network has a {kind.__name__}"
    return module


def matrix(module: nn.Module) -> Affine:
    """Weight and bias of a 1x1 convolution as those of a matmul."""
    conv = expect(nn.Conv2d, module)
    assert conv.bias is not None
    return conv.weight.flatten(1), conv.bias


def fold_norm(norm: LayerNorm, layer: Affine) -> Affine:
    """W (g * x + b) + c = (W g) x + (W b + c)."""
    weight, bias = layer
    return weight * norm.weight, bias + weight @ norm.bias


def fold_query_scale(layer: Affine, head_dim: int) -> Affine:
    """D^-1/2 into the first third of the rows, those of q."""
    scale = torch.ones_like(layer[1])
    scale[: scale.numel() // 3] = head_dim**-0.5
    return layer[0] * scale[:, None], layer[1] * scale


def drop_key_bias(layer: Affine) -> Affine:
    """Zero the second third of the bias: softmax does not see a constant added to all logits of a query."""
    q, _, v = layer[1].chunk(3)
    return layer[0], torch.cat([q, torch.zeros_like(q), v])


def move_value_bias(qkv: Affine, out: Affine) -> tuple[Affine, Affine]:
    """Attention weights sum to 1, so the bias of v passes through attention; only without a gate."""
    q, k, v = qkv[1].chunk(3)
    return (qkv[0], torch.cat([q, k, torch.zeros_like(v)])), (out[0], out[1] + out[0] @ v)


def widen_heads(x: Tensor, groups: int, heads: int, width: int) -> Tensor:
    """Append zero channels to each head of (groups*heads*D, ...), so that a head has `width` channels."""
    x = x.reshape(groups, heads, -1, *x.shape[1:])
    missing = x.new_zeros(groups, heads, width - x.shape[2], *x.shape[3:])
    return torch.cat([x, missing], dim=2).flatten(0, 2)


def linear(target: nn.Linear, layer: Affine) -> None:
    """Give a layer the weight and bias of a 1x1 convolution."""
    target.weight = nn.Parameter(layer[0].detach().clone())
    target.bias = nn.Parameter(layer[1].detach().clone())


def norm_of(norm: LayerNorm) -> deploy.Norm:
    """A LayerNorm that keeps its affine part."""
    kept = deploy.Norm(norm.weight.numel(), affine=True).to(norm.weight.dtype)
    assert kept.weight is not None
    assert kept.bias is not None
    kept.weight.data.copy_(norm.weight)
    kept.bias.data.copy_(norm.bias)
    return kept


def fold_attention(norm: LayerNorm, attention: WindowAttention, head_multiple: int = 1) -> deploy.Attention:
    """Fold `norm` and `attention` into one deployment layer; the residual stays outside."""
    config = attention.config
    heads, head_dim = config.heads, config.head_dim
    width = round_up(head_dim, head_multiple)
    qkv, out = matrix(attention.to_qkv), matrix(attention.to_out)
    gate, gate_dwc = None, None
    if attention.gate is not None:
        convs = [m for m in attention.gate if isinstance(m, nn.Conv2d)]
        gate = matrix(convs[-1])
        gate_dwc = convs[0] if len(convs) == 2 else None
    keep_affine = gate_dwc is not None
    if not keep_affine:
        qkv = fold_norm(norm, qkv)
        gate = gate and fold_norm(norm, gate)
    qkv = drop_key_bias(fold_query_scale(qkv, head_dim))
    if gate is None:
        qkv, out = move_value_bias(qkv, out)
    layer = deploy.Attention(
        dataclasses.replace(config, head_dim=width),
        norm_of(norm) if keep_affine else deploy.Norm(config.dim, affine=False),
    )
    linear(layer.qkv, (widen_heads(qkv[0], 3, heads, width), widen_heads(qkv[1], 3, heads, width)))
    linear(layer.out, (widen_heads(out[0].T, 1, heads, width).T, out[1]))
    if gate is not None:
        assert layer.gate is not None
        linear(layer.gate, (widen_heads(gate[0], 1, heads, width), widen_heads(gate[1], 1, heads, width)))
    if gate_dwc is not None:
        layer.gate_dwc = copy.deepcopy(gate_dwc)
    rows, columns = attention.hidden_terms()
    codes = layer.codes
    for target, value in (
        (codes.rows, rows),
        (codes.columns, columns),
        (codes.to_q, attention.to_q * config.rank**-0.5),
        (codes.to_k, attention.to_k),
    ):
        target.data = value.detach().clone()
    return layer


def fold_ffn(norm: LayerNorm | None, ffn: ConvFFN, last: Affine | None = None) -> deploy.FFN:
    """Fold `norm` and `ffn`; `last` replaces the FFN's last 1x1 convolution."""
    proj = matrix(ffn.proj)
    last = last or matrix(ffn.get_submodule(ffn.last))
    if norm is not None:
        proj = fold_norm(norm, proj)
    hidden, dim = proj[0].shape
    layer = deploy.FFN(dim, hidden, last[0].shape[0], None if norm is None else deploy.Norm(dim, affine=False))
    linear(layer.proj, proj)
    linear(layer.last, last)
    layer.dwc = copy.deepcopy(ffn.dwc)
    return layer


def in_float64(network: N, fold: Callable[[N], D], dtype: torch.dtype) -> D:
    """Fold a copy of `network` in float64.

    Args:
        network: stays as it is.
        fold: makes the deployment form of the copy; may take modules of it.
        dtype: of the result, which is in eval mode and cannot be trained.
    """
    with torch.no_grad():
        folded = fold(copy.deepcopy(network).double())
    return folded.requires_grad_(False).to(dtype).eval()
