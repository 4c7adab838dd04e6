"""The Fibottention ViT computes what the official code computes, in training form, folded, and in its form for GPUs."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from flashrib.model.architectures.fibottention_vit.config import PRESETS, FibottentionConfig
from flashrib.model.architectures.fibottention_vit.deploy import Block
from flashrib.model.architectures.fibottention_vit.network import FibottentionViT
from flashrib.model.architectures.registry import network_from_config, preset
from flashrib.model.fold import fold
from flashrib.model.gpu import gpu_network
from flashrib.runtime.errors import UsageError
from tests.places import SHARED

GOLDEN = SHARED / "golden" / "fibottention" / "fibo_vit_tiny48.safetensors"
TINY48 = FibottentionConfig("fibottention-custom", 48, 3, 3, 16, 14, classes=10, mask_mode="zero_logit")
SMALL = FibottentionConfig("fibottention-custom", 24, 3, 3, patch=2, grid=5, classes=7, hidden=40)

# The official class in its evaluation, in its training, and with timm's fused attention, which drops the mask.
OFFICIAL = {
    "logits_eval_masks_per_layer": TINY48,
    "logits_train_mask_depth0_everywhere": dataclasses.replace(TINY48, order="depth0"),
    "logits_fused_no_mask": dataclasses.replace(TINY48, mask_mode="dense"),
}


def random_network(config: FibottentionConfig, dtype: torch.dtype = torch.float64) -> FibottentionViT:
    """A network with biases and affine parts that matter."""
    torch.manual_seed(5)
    network = network_from_config(config).to(dtype).eval()
    assert isinstance(network, FibottentionViT)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.3 * noise if "norm" in name and "weight" in name else 0.3 * noise)
    return network


def picture(config: FibottentionConfig, count: int = 2) -> Tensor:
    return torch.rand(
        count, 3, config.size, config.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


@pytest.mark.shared
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_logits(name: str) -> None:
    """The vectors are the official code's in float32, itself up to 1.2e-4 away from float64."""
    vector = load_file(GOLDEN)
    config = OFFICIAL[name]
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (config.mean, config.std))
    image = vector["image"].double() * std + mean  # the network normalises itself
    network = network_from_config(config).eval()
    network.load_state_dict({key.removeprefix("model."): x for key, x in vector.items() if key.startswith("model.")})
    exact = network.double()(image)
    assert (exact - vector[name]).abs().max() <= 2e-4
    others = [vector[other] for other in OFFICIAL if other != name]
    assert all((exact - other).abs().max() > 0.05 for other in others)
    assert (fold(network, dtype=torch.float64)(image) - exact).abs().max() <= 1e-9
    assert (fold(network)(image.float()) - exact).abs().max() <= 2e-4
    assert (gpu_network(network, torch.float32)(image.float()) - exact).abs().max() <= 2e-4


@pytest.mark.parametrize("classes", [7, 0])
@pytest.mark.parametrize("logit_scale", ["d^-1/2", "d^-1"])
@pytest.mark.parametrize("mask_mode", ["neg_inf", "zero_logit", "dense"])
def test_fold(mask_mode: str, logit_scale: str, classes: int) -> None:
    config = dataclasses.replace(SMALL, mask_mode=mask_mode, logit_scale=logit_scale, classes=classes)
    network = random_network(config)
    x = picture(config)
    with torch.no_grad():
        wanted = network(x)
        assert wanted.shape == (2, classes or 24)
        assert (fold(network, dtype=torch.float64)(x) - wanted).abs().max() <= 1e-9
        assert (gpu_network(network, torch.float32)(x.float()) - wanted).abs().max() <= 2e-4


def test_only_the_bias_of_k_that_changes_nothing_is_dropped() -> None:
    for mask_mode in ("neg_inf", "zero_logit"):
        config = dataclasses.replace(SMALL, mask_mode=mask_mode)
        network = random_network(config)
        folded = fold(network, dtype=torch.float64)
        block = folded.blocks[0]
        assert isinstance(block, Block)
        key_bias = block.qkv.bias[24:48]
        assert bool((key_bias == 0).all()) == (mask_mode == "neg_inf")
        with torch.no_grad():
            before = folded(picture(config))
            for each in folded.blocks:
                each.qkv.bias[24:48] = 0
            change = (folded(picture(config)) - before).abs().max()
        assert (change == 0) == (mask_mode == "neg_inf")
        assert change == 0 or change > 1e-3


def test_gradients_reach_every_parameter() -> None:
    network = random_network(SMALL).train()
    network(picture(SMALL)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_presets() -> None:
    assert len(PRESETS) == 12
    config = preset("fibottention-base-2")
    assert isinstance(config, FibottentionConfig)
    assert (config.patches, config.heads, config.head_dim, config.size) == (12544, 12, 64, 224)
    parameters = sum(p.numel() for p in network_from_config(preset("fibottention-tiny-16")).parameters())
    assert parameters == 5_717_416


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask_mode": "masked"},
        {"heads": 5},
        {"order": "shuffled"},
        {"logit_scale": "d"},
        {"std": (0.0, 1.0, 1.0)},
        {"grid": 0},
    ],
)
def test_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        dataclasses.replace(SMALL, **wrong)
