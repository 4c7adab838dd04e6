"""SST: training form -> deployment form."""

import torch
from torch import nn

from flashrib.model.architectures.sst.deploy import DeployedSST, SSTBlock
from flashrib.model.architectures.sst.network import SST, SSTLayer
from flashrib.model.folding import expect, fold_attention, fold_ffn, in_float64, norm_of
from flashrib.model.layers import LayerNorm


def fold_block(block: nn.Module, head_multiple: int) -> SSTBlock:
    """Fold one block of SST."""
    *modules, conv = expect(nn.Sequential, block)
    layers = [expect(SSTLayer, module) for module in modules]
    return SSTBlock(
        [fold_attention(layer.norm_attn, layer.attn, head_multiple) for layer in layers],
        [fold_ffn(layer.norm_ffn, layer.ffn) for layer in layers],
        expect(nn.Conv2d, conv),
    )


def fold(network: SST, *, head_multiple: int = 1, dtype: torch.dtype = torch.float32) -> DeployedSST:
    """See `flashrib.model.fold.fold`."""

    def folded(source: SST) -> DeployedSST:
        *blocks, norm, last = source.body
        result = DeployedSST(source.config, source.upsampler, [fold_block(block, head_multiple) for block in blocks])
        result.first = source.proj
        result.norm, result.last = norm_of(expect(LayerNorm, norm)), expect(nn.Conv2d, last)
        return result

    return in_float64(network, folded, dtype)
