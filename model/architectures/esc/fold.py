"""ESC-RIB: training form -> deployment form. Besides what `flashrib.model.folding` does:

symmetric kernel     -> averaged once
adjacent 1x1         -> one, for the channels that the large kernel leaves alone
"""

import torch
from torch import Tensor, nn

from flashrib.model.architectures.esc.deploy import ConvLayer, DeployedESC
from flashrib.model.architectures.esc.deploy import ESCBlock as DeployedBlock
from flashrib.model.architectures.esc.network import ESC, ESCBlock, PartialConv, geometric_ensemble
from flashrib.model.folding import Affine, expect, fold_attention, fold_ffn, in_float64, linear, matrix, norm_of
from flashrib.model.layers import ConvFFN, LayerNorm


def merge_partial(ffn_last: Affine, aggr: Affine, pdim: int) -> tuple[Affine, Tensor]:
    """The FFN's last 1x1 convolution z = A1 u + b1, then y = A2 [m, z[P:]] + b2 with m made from z[:P].

    Returns:
        One 1x1 convolution of u with C + P outputs: A2[:, P:] z[P:] + b2 and z[:P]; and A2[:, :P], to be applied to m.
    """
    (a1, b1), (a2, b2) = ffn_last, aggr
    passed = (a2[:, pdim:] @ a1[pdim:], a2[:, pdim:] @ b1[pdim:] + b2)
    return (torch.cat([passed[0], a1[:pdim]]), torch.cat([passed[1], b1[:pdim]])), a2[:, :pdim]


def fold_conv_layer(norm: nn.Module, ffn: ConvFFN, partial: PartialConv) -> ConvLayer:
    """Fold one convolutional layer of ESC; the residual stays outside."""
    pdim = partial.plk.pdim
    last, aggr = merge_partial(matrix(ffn.get_submodule(ffn.last)), matrix(partial.aggr), pdim)
    dim, hidden = aggr.shape[0], ffn.proj.out_channels
    layer = ConvLayer(dim, pdim, hidden, None)
    layer.ffn = fold_ffn(norm if isinstance(norm, LayerNorm) else None, ffn, last)
    _, squeeze, _, expand = partial.plk.dwc_proj
    linear(layer.squeeze, matrix(squeeze))
    linear(layer.expand, matrix(expand))
    layer.aggr.weight = nn.Parameter(aggr.detach().clone())
    return layer


def fold_block(module: nn.Module, head_multiple: int) -> DeployedBlock:
    """Fold one block of ESC-RIB."""
    block = expect(ESCBlock, module)
    return DeployedBlock(
        fold_ffn(block.ln_proj, block.proj),
        fold_attention(block.ln_attn, block.attn, head_multiple),
        [
            fold_conv_layer(norm, expect(ConvFFN, ffn), expect(PartialConv, partial))
            for norm, ffn, partial in zip(block.lns, block.convffns, block.pconvs, strict=True)
        ],
        norm_of(block.ln_out),
        block.conv_out,
    )


def fold(network: ESC, *, head_multiple: int = 1, dtype: torch.dtype = torch.float32) -> DeployedESC:
    """See `flashrib.model.fold.fold`."""

    def folded(source: ESC) -> DeployedESC:
        norm, last = source.last
        blocks = [fold_block(block, head_multiple) for block in source.blocks]
        result = DeployedESC(source.config, source.upsampler, blocks, geometric_ensemble(source.plk_filter))
        result.first = source.proj
        result.norm, result.last = norm_of(expect(LayerNorm, norm)), expect(nn.Conv2d, last)
        return result

    return in_float64(network, folded, dtype)
