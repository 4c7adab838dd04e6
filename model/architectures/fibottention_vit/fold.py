"""Fibottention: training form -> deployment form.

scale of the logits     -> rows of q
LayerNorm's affine part -> following linear layer
bias of k               -> dropped, but not under zero_logit: there logits left out are 0 and would have to be shifted, too
bias of v               -> bias of proj, since weights sum to 1 in every mask mode
bias of the patches     -> positions
"""

import torch
from torch import Tensor, nn

from flashrib.model.architectures.fibottention_vit import deploy
from flashrib.model.architectures.fibottention_vit.config import FibottentionConfig
from flashrib.model.architectures.fibottention_vit.deploy import DeployedFibottention
from flashrib.model.architectures.fibottention_vit.network import Attention, Block, FibottentionViT, query_scale
from flashrib.model.folding import Affine, drop_key_bias, expect, in_float64, linear, move_value_bias


def matrix(layer: nn.Linear) -> Affine:
    """Weight and bias of a linear layer."""
    return layer.weight, layer.bias


def fold_norm(norm: nn.LayerNorm, layer: Affine) -> Affine:
    """W (g * x + b) + c = (W g) x + (W b + c)."""
    weight, bias = layer
    return weight * norm.weight, bias + weight @ norm.bias


def fold_attention(norm: nn.LayerNorm, attention: Attention, keep_key_bias: bool) -> tuple[Affine, Affine]:
    """qkv and proj of a block, its LayerNorm and the scale of its logits within."""
    weight, bias = fold_norm(norm, matrix(attention.qkv))
    scale = query_scale(attention.config, bias)
    qkv: Affine = (weight * scale[:, None], bias * scale)
    if not keep_key_bias:
        qkv = drop_key_bias(qkv)
    return move_value_bias(qkv, matrix(attention.proj))


def fold_mlp(target: deploy.MLP, block: Block) -> None:
    linear(target.fc1, fold_norm(block.norm2, matrix(block.mlp.fc1)))
    linear(target.fc2, matrix(block.mlp.fc2))


def fold_last(target: deploy.LastBlock, block: Block) -> None:
    (weight, bias), proj = fold_attention(block.norm1, block.attn, keep_key_bias=False)  # the class token sees all
    dim = proj[0].shape[0]
    linear(target.q, (weight[:dim], bias[:dim]))
    linear(target.kv, (weight[dim:], bias[dim:]))
    linear(target.proj, proj)
    fold_mlp(target.mlp, block)


def fold(
    network: FibottentionViT, *, head_multiple: int = 1, dtype: torch.dtype = torch.float32
) -> DeployedFibottention:
    """See `flashrib.model.fold.fold`; heads stay as wide as they are."""

    def folded(source: FibottentionViT) -> DeployedFibottention:
        config: FibottentionConfig = source.config
        result = DeployedFibottention(config)
        blocks = [expect(Block, block) for block in source.blocks]
        for target, block in zip(result.blocks, blocks[:-1], strict=True):
            target = expect(deploy.Block, target)
            qkv, proj = fold_attention(block.norm1, block.attn, config.mask_mode == "zero_logit")
            linear(target.qkv, qkv)
            linear(target.proj, proj)
            fold_mlp(target.mlp, block)
        fold_last(result.last, blocks[-1])
        patch, positions = source.patch_embed.proj, source.pos_embed
        assert patch.bias is not None
        _set(result.patch, "weight", patch.weight)
        # not into the patches' weights, where the mean would cancel most of what float16 and float32 hold of a picture
        result.mean, result.inverse_std = source.mean, 1 / source.std
        _set(result, "class_token", source.cls_token + positions[:, :1])
        _set(result, "positions", positions[:, 1:] + patch.bias)
        if source.head is None:
            result.norm = source.norm
        else:
            assert result.head is not None
            linear(result.head, fold_norm(source.norm, matrix(source.head)))
        return result

    return in_float64(network, folded, dtype)


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    setattr(module, name, nn.Parameter(value.detach().clone()))
