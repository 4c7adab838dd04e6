"""SST-Real: training form -> deployment form at the noise level of its configuration.

Beside what `flashrib.model.folding` does for attention: the embedding of the noise level is a constant, so shift and scale of a
modulated LayerNorm are its affine part, and the gates of the residuals, gamma, the preconditioning, the guidance
(D_i + lambda (D_f - D_i) is a sum of both heads) and the way from -1..1 to 0..1 are in the convolutions next to them.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from flashrib.model import deploy
from flashrib.model.architectures.sst_real.deploy import DeployedSSTReal, GatedFFN, SSTRealBlock
from flashrib.model.architectures.sst_real.network import GatedFFN as TrainedFFN
from flashrib.model.architectures.sst_real.network import SSTReal, noise_level, preconditioning
from flashrib.model.architectures.sst_real.network import SSTRealBlock as TrainedBlock
from flashrib.model.architectures.sst_real.network import SSTRealLayer as TrainedLayer
from flashrib.model.folding import expect, fold_attention, fold_norm, in_float64, linear, matrix
from flashrib.model.layers import LayerNorm


def _affine(scale: Tensor, shift: Tensor) -> LayerNorm:
    norm = LayerNorm(scale.numel()).double()
    norm.weight.copy_(1 + scale)
    norm.bias.copy_(shift)
    return norm


def _gated(module: nn.Module, gate: Tensor) -> None:
    """Multiply the output of a convolution by a number per channel."""
    conv = expect(nn.Conv2d, module)
    assert conv.bias is not None
    conv.weight.mul_(gate[:, None, None, None])
    conv.bias.mul_(gate)


def _ffn(ffn: TrainedFFN, norm: LayerNorm) -> GatedFFN:
    layer = GatedFFN(ffn.w3.out_channels, ffn.w3.in_channels)
    linear(layer.proj, fold_norm(norm, matrix(ffn.w12[0])))
    linear(layer.last, matrix(ffn.w3))
    layer.dwc = expect(nn.Conv2d, ffn.w12[1])
    return layer


def _block(module: nn.Module, embedding: Tensor, head_multiple: int) -> SSTRealBlock:
    block = expect(TrainedBlock, module)
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (m.flatten() for m in block.modulation(embedding))
    attentions: list[deploy.Attention] = []
    ffns: list[GatedFFN] = []
    for part in block.blocks:
        layer = expect(TrainedLayer, part)
        _gated(layer.attn.to_out, gate_a)
        _gated(layer.ffn.w3, gate_f)
        attentions.append(fold_attention(_affine(scale_a, shift_a), layer.attn, head_multiple))
        ffns.append(_ffn(layer.ffn, _affine(scale_f, shift_f)))
    _gated(block.out_conv, block.gamma.flatten())
    fuse = None
    if block.fuse_lr is not None:
        weight, bias = matrix(block.fuse_lr)
        dim = weight.shape[0]
        fuse = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False)
        linear(fuse[0], (weight[:, :dim], bias))
        fuse[1].weight = nn.Parameter(weight[:, dim:].clone())
    return SSTRealBlock(fuse, attentions, ffns, block.out_conv)


def _last(heads: list[nn.Sequential], shares: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Weight and bias of the last convolutions of all heads in one."""
    convs = [expect(nn.Conv2d, list(head)[-1]) for head in heads]
    weight = torch.cat([share * conv.weight for share, conv in zip(shares, convs, strict=True)], dim=1)
    bias: Any = sum(share * (0 if conv.bias is None else conv.bias) for share, conv in zip(shares, convs, strict=True))
    return weight, bias + 0.5


def fold(network: SSTReal, *, head_multiple: int = 1, dtype: torch.dtype = torch.float32) -> DeployedSSTReal:
    """See `flashrib.model.fold.fold`."""

    def folded(source: SSTReal) -> DeployedSSTReal:
        config, model = source.config, copy.deepcopy(source.model)
        sigma = torch.tensor([config.sigma], dtype=torch.float64)
        embedding = model.map_noise(noise_level(sigma))
        c_skip, c_out = preconditioning(sigma, config.sigma_data, config.use_skip)
        heads, shares = [model.up_i, model.up_f], [1 - config.guidance, config.guidance]
        if config.guidance == 1:
            heads, shares = heads[1:], shares[1:]
        result = DeployedSSTReal(
            config,
            [_block(block, embedding, head_multiple) for block in model.proj_body],
            [expect(nn.Sequential, head[:-1]) for head in heads],
            0.5 * c_skip.item(),
        )
        result.first, result.low = model.proj_in, model.proj_lr
        weight, bias = _last(heads, [0.5 * c_out * share for share in shares])
        result.last.weight, result.last.bias = nn.Parameter(weight), nn.Parameter(bias)
        return result

    return in_float64(network, folded, dtype)
