"""Every folding step equals what it replaces, in float64, at odd sizes that are no multiples of the windows."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from flashrib.model import ESCConfig, SSTConfig
from flashrib.model.architectures.esc.fold import fold_conv_layer, merge_partial
from flashrib.model.architectures.esc.network import PartialConv, geometric_ensemble
from flashrib.model.architectures.registry import build_model, network_from_config
from flashrib.model.config import AttentionConfig, Gate, UpsamplerConfig
from flashrib.model.fold import fold
from flashrib.model.folding import (
    drop_key_bias,
    fold_attention,
    fold_ffn,
    fold_norm,
    fold_query_scale,
    matrix,
    move_value_bias,
    widen_heads,
)
from flashrib.model.layers import ConvFFN, LayerNorm, WindowAttention
from tests.official import max_abs, seeded

BOUND = 1e-12
SIZES = [(13, 19), (33, 47), (5, 5)]


def random_norm(dim: int) -> LayerNorm:
    norm = LayerNorm(dim).double()
    g = seeded(1)
    norm.weight.data = torch.randn(dim, generator=g, dtype=torch.float64)
    norm.bias.data = torch.randn(dim, generator=g, dtype=torch.float64)
    return norm


def picture(channels: int, size: tuple[int, int], batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, *size, generator=seeded(2), dtype=torch.float64)


def channels_last(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a deployment module to a (B, C, H, W) map."""
    y: Tensor = module(x.permute(0, 2, 3, 1))
    return y.permute(0, 3, 1, 2)


def attention(gate: Gate, shifted: bool, window: tuple[int, int] = (4, 6)) -> WindowAttention:
    torch.manual_seed(3)
    config = AttentionConfig(12, window, heads=3, rank=5, rib_hidden=8, shifted=shifted, gate=gate)
    return WindowAttention(config).double()


def test_fold_norm() -> None:
    norm, conv, x = random_norm(7), nn.Conv2d(7, 5, 1).double(), picture(7, (13, 19))
    weight, bias = fold_norm(norm, matrix(conv))
    plain = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    assert max_abs(nn.functional.conv2d(plain, weight[..., None, None], bias), conv(norm(x))) <= BOUND


def test_fold_query_scale_touches_q_alone() -> None:
    layer = (torch.ones(6, 2), torch.ones(6))
    weight, bias = fold_query_scale(layer, 16)
    assert bias.tolist() == [0.25, 0.25, 1, 1, 1, 1]
    assert torch.equal(weight, bias[:, None].expand(6, 2))


def test_drop_key_bias_touches_k_alone() -> None:
    assert drop_key_bias((torch.ones(6, 2), torch.arange(1.0, 7)))[1].tolist() == [1, 2, 0, 0, 5, 6]


def test_key_bias_is_dead() -> None:
    norm, layer, x = random_norm(12), attention("DWC", False), picture(12, (13, 19))
    before = layer(norm(x))
    assert layer.to_qkv.bias is not None
    layer.to_qkv.bias.data[12:24] += 3
    assert max_abs(layer(norm(x)), before) <= BOUND


def test_move_value_bias() -> None:
    g = seeded(4)
    v_bias, weight, bias = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((3,), (5, 3), (5,)))
    qkv, out = move_value_bias((weight, torch.cat([torch.zeros(6), v_bias])), (weight, bias))
    assert not qkv[1].any()
    value = torch.randn(3, generator=g, dtype=torch.float64)
    assert max_abs(out[0] @ value + out[1], weight @ (value + v_bias) + bias) <= BOUND


def test_widen_heads() -> None:
    x = torch.arange(2 * 3 * 2.0).reshape(12, 1)
    wide = widen_heads(x, groups=2, heads=3, width=4).reshape(2, 3, 4)
    assert torch.equal(wide[..., :2].flatten(), x.flatten())
    assert not wide[..., 2:].any()


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("head_multiple", [1, 8])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("gate", [None, "Linear", "DWC"])
def test_attention(gate: Gate, shifted: bool, head_multiple: int, size: tuple[int, int]) -> None:
    norm, layer, x = random_norm(12), attention(gate, shifted), picture(12, size)
    folded = fold_attention(norm, layer, head_multiple)
    assert max_abs(channels_last(folded, x), layer(norm(x))) <= BOUND
    assert (folded.norm.weight is None) == (gate != "DWC")  # nothing is kept that could be folded
    assert folded.qkv.out_features == 3 * 3 * (4 if head_multiple == 1 else 8)


def test_position_codes_are_the_recipe_of_the_training_form() -> None:
    layer = attention("DWC", False, window=(5, 7))
    folded = fold_attention(random_norm(12), layer)
    for ours, theirs in zip(folded.codes(), layer.position_codes(), strict=True):
        assert max_abs(ours, theirs) <= BOUND


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ffn(size: tuple[int, int]) -> None:
    norm, ffn, x = random_norm(6), ConvFFN(6, 9, "agg").double(), picture(6, size)
    assert max_abs(channels_last(fold_ffn(norm, ffn), x), ffn(norm(x))) <= BOUND


def test_merge_partial() -> None:
    g = seeded(5)
    a1, b1, a2, b2, u, m = (
        torch.randn(*s, generator=g, dtype=torch.float64) for s in ((6, 9), (6,), (6, 6), (6,), (9,), (2,))
    )
    (weight, bias), aggr = merge_partial((a1, b1), (a2, b2), 2)
    z = a1 @ u + b1
    assert max_abs(weight @ u + bias, torch.cat([a2[:, 2:] @ z[2:] + b2, z[:2]])) <= BOUND
    assert max_abs((weight @ u + bias)[:6] + aggr @ m, a2 @ torch.cat([m, z[2:]]) + b2) <= BOUND


@pytest.mark.parametrize("with_norm", [False, True])
def test_conv_layer(with_norm: bool) -> None:
    torch.manual_seed(6)
    norm = random_norm(8) if with_norm else nn.Identity()
    ffn, partial = ConvFFN(8, 12, "aggr").double(), PartialConv(8, 4).double()
    kernel = geometric_ensemble(torch.randn(4, 4, 5, 5, generator=seeded(7), dtype=torch.float64))
    x = picture(8, (13, 19))
    folded = fold_conv_layer(norm, ffn, partial)(x.permute(0, 2, 3, 1), kernel).permute(0, 3, 1, 2)
    assert max_abs(folded, partial(ffn(norm(x)), kernel)) <= BOUND


ESC = ESCConfig(
    "esc-rib-custom", dim=12, pdim=4, kernel_size=5, blocks=2, conv_blocks=2, window=(8, 8), heads=3, rank=5, ffn_dim=15
)
SST = SSTConfig("sst-custom", dim=12, windows=((4, 4), (6, 4)), heads=(3, 2), ranks=(3, 5), blocks=2, ffn_dim=15)


@pytest.mark.parametrize("head_multiple", [1, 8])
@pytest.mark.parametrize("kind", ["pixelshuffle_direct", "pixelshuffle", "nn+conv"])
@pytest.mark.parametrize("config", [SST, ESC], ids=lambda c: c.family)
def test_whole_network(config: SSTConfig | ESCConfig, kind: str, head_multiple: int) -> None:
    torch.manual_seed(8)
    upsampler = UpsamplerConfig(kind, 3, 8)
    network = network_from_config(dataclasses.replace(config, upsampler=upsampler)).double().eval()
    for module in network.modules():
        if isinstance(module, LayerNorm):  # fresh ones would hide a forgotten affine part
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    folded = fold(network, head_multiple=head_multiple, dtype=torch.float64)
    x = torch.rand(2, 3, 21, 34, generator=seeded(9), dtype=torch.float64)
    with torch.no_grad():
        assert max_abs(folded(x), network.upscale(x)) <= 1e-10
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_folded_form_is_smaller_and_ready() -> None:
    network = build_model("sst-light", 2)
    folded = fold(network)
    assert not folded.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in folded.parameters())
