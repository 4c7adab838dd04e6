"""Folding: training form -> deployment form, equal up to rounding. All of it in float64; the result is cast once at the end.

    bias MLP of RIB             -> tables of rows and columns, evaluated once at load
    D^-1/2                      -> rows of q in qkv
    R^-1/2                      -> the matrix that makes pos_q
    bias of k                   -> dropped: it adds the same number to all logits of a query
    bias of v                   -> bias of the output projection, where no gate multiplies in between
    affine part of a LayerNorm  -> the 1x1 convolution after it, where nothing else reads the normalised map
    width of a head             -> a multiple of `head_multiple`, by zero channels
    ESC's symmetric kernel      -> averaged once
    ESC's adjacent 1x1          -> one, for the channels that the large kernel leaves alone

A LayerNorm in front of a 3x3 convolution keeps its affine part: zero padding happens after the affine, so its bias does not fold
exactly at the picture's border. The gate "DWC" is such a convolution, so a gated attention keeps it too.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.architectures.esc.network import ESC, ESCBlock, PartialConv, geometric_ensemble
from flashrib.model.architectures.registry import Network
from flashrib.model.architectures.sst.network import SST, SSTLayer
from flashrib.model.layers import ConvFFN, LayerNorm, WindowAttention

Affine = tuple[Tensor, Tensor]  # weight (out, in) and bias (out) of a 1x1 convolution
M = TypeVar("M", bound=nn.Module)


def expect(kind: type[M], module: nn.Module) -> M:
    """Return `module`, which containers only know as a Module, as what it is."""
    assert isinstance(module, kind), f"{type(module).__name__} where the network has a {kind.__name__}"
    return module


def matrix(module: nn.Module) -> Affine:
    """Weight and bias of a 1x1 convolution as those of a matrix product."""
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


def merge_partial(ffn_last: Affine, aggr: Affine, pdim: int) -> tuple[Affine, Tensor]:
    """The FFN's last 1x1 convolution z = A1 u + b1, then y = A2 [m, z[P:]] + b2 with m made from z[:P].

    Returns:
        One 1x1 convolution of u with C + P outputs: A2[:, P:] z[P:] + b2 and z[:P]; and A2[:, :P], to be applied to m.
    """
    (a1, b1), (a2, b2) = ffn_last, aggr
    passed = (a2[:, pdim:] @ a1[pdim:], a2[:, pdim:] @ b1[pdim:] + b2)
    return (torch.cat([passed[0], a1[:pdim]]), torch.cat([passed[1], b1[:pdim]])), a2[:, :pdim]


def _linear(target: nn.Linear, layer: Affine) -> None:
    target.weight = nn.Parameter(layer[0].detach().clone())
    target.bias = nn.Parameter(layer[1].detach().clone())


def _norm(norm: LayerNorm) -> deploy.Norm:
    kept = deploy.Norm(norm.weight.numel(), affine=True).to(norm.weight.dtype)
    assert kept.weight is not None
    assert kept.bias is not None
    kept.weight.data.copy_(norm.weight)
    kept.bias.data.copy_(norm.bias)
    return kept


def fold_attention(norm: LayerNorm, attention: WindowAttention, head_multiple: int = 1) -> deploy.Attention:
    """Fold `norm` and `attention` into one deployment layer; the residual stays outside."""
    heads, head_dim = attention.heads, attention.head_dim
    width = -(-head_dim // head_multiple) * head_multiple
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
    dim = out[0].shape[0]
    layer = deploy.Attention(
        dim,
        attention.window,
        attention.shift,
        heads,
        width,
        attention.rank,
        attention.to_q.shape[1],
        None if gate is None else "Linear" if gate_dwc is None else "DWC",
        _norm(norm) if keep_affine else deploy.Norm(dim, affine=False),
    )
    _linear(layer.qkv, (widen_heads(qkv[0], 3, heads, width), widen_heads(qkv[1], 3, heads, width)))
    _linear(layer.out, (widen_heads(out[0].T, 1, heads, width).T, out[1]))
    if gate is not None:
        assert layer.gate is not None
        _linear(layer.gate, (widen_heads(gate[0], 1, heads, width), widen_heads(gate[1], 1, heads, width)))
    if gate_dwc is not None:
        layer.gate_dwc = copy.deepcopy(gate_dwc)
    rows, columns = attention.hidden_terms()
    codes = layer.codes
    for target, value in (
        (codes.rows, rows),
        (codes.columns, columns),
        (codes.to_q, attention.to_q * attention.rank**-0.5),
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
    _linear(layer.proj, proj)
    _linear(layer.last, last)
    layer.dwc = copy.deepcopy(ffn.dwc)
    return layer


def fold_conv_layer(norm: nn.Module, ffn: ConvFFN, partial: PartialConv) -> deploy.ConvLayer:
    """Fold one convolutional layer of ESC; the residual stays outside."""
    pdim = partial.plk.pdim
    last, aggr = merge_partial(matrix(ffn.get_submodule(ffn.last)), matrix(partial.aggr), pdim)
    dim, hidden = aggr.shape[0], ffn.proj.out_channels
    layer = deploy.ConvLayer(dim, pdim, hidden, None)
    layer.ffn = fold_ffn(norm if isinstance(norm, LayerNorm) else None, ffn, last)
    _, squeeze, _, expand = partial.plk.dwc_proj
    _linear(layer.squeeze, matrix(squeeze))
    _linear(layer.expand, matrix(expand))
    layer.aggr.weight = nn.Parameter(aggr.detach().clone())
    return layer


def fold_sst_block(block: nn.Module, head_multiple: int) -> deploy.DeployedSSTBlock:
    """Fold one block of SST."""
    *modules, conv = expect(nn.Sequential, block)
    layers = [expect(SSTLayer, module) for module in modules]
    return deploy.DeployedSSTBlock(
        [fold_attention(layer.norm_attn, layer.attn, head_multiple) for layer in layers],
        [fold_ffn(layer.norm_ffn, layer.ffn) for layer in layers],
        expect(nn.Conv2d, conv),
    )


def fold_esc_block(module: nn.Module, head_multiple: int) -> deploy.DeployedESCBlock:
    """Fold one block of ESC-RIB."""
    block = expect(ESCBlock, module)
    return deploy.DeployedESCBlock(
        fold_ffn(block.ln_proj, block.proj),
        fold_attention(block.ln_attn, block.attn, head_multiple),
        [
            fold_conv_layer(norm, expect(ConvFFN, ffn), expect(PartialConv, partial))
            for norm, ffn, partial in zip(block.lns, block.convffns, block.pconvs, strict=True)
        ],
        _norm(block.ln_out),
        block.conv_out,
    )


def fold(network: Network, *, head_multiple: int = 1, dtype: torch.dtype = torch.float32) -> deploy.Deployed:
    """Return the deployment form of `network`, in eval mode; `network` stays as it is.

    Args:
        network: SST or ESC.
        head_multiple: widen every head to a multiple of this many channels, for kernels that want it (the fused GPU kernels
            want 8); 1 leaves the heads alone.
        dtype: dtype of the result; everything is computed in float64 before.
    """
    source = copy.deepcopy(network).double()
    folded: deploy.Deployed
    with torch.no_grad():
        if isinstance(source, SST):
            *blocks, norm, last = source.body
            folded = deploy.DeployedSST(
                source.config, source.upsampler, [fold_sst_block(block, head_multiple) for block in blocks]
            )
        else:
            source = expect(ESC, source)
            norm, last = source.last
            folded = deploy.DeployedESC(
                source.config,
                source.upsampler,
                [fold_esc_block(block, head_multiple) for block in source.blocks],
                geometric_ensemble(source.plk_filter),
            )
        folded.first, folded.norm, folded.last = source.proj, _norm(expect(LayerNorm, norm)), expect(nn.Conv2d, last)
    return folded.requires_grad_(False).to(dtype).eval()
