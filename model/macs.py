"""How much work a network is: multiply-adds of one picture, counted on PyTorch's meta device, which computes nothing."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from flashrib.model.architectures.registry import network_from_config
from flashrib.model.config import NetworkConfig, UpscalerConfig
from flashrib.model.sizes import round_up


def count_macs(config: NetworkConfig, height: int, width: int) -> dict[str, int]:
    """Count the multiply-adds (MACs, half of the FLOPs) of the official test pipeline for one input.

    Norms, activations, softmax, interpolation and constants such as position codes are left out. Attention is counted on the map padded to
    windows, qkv on the map itself, where the official code pads before.

    Args:
        config: of the network.
        height: of the input in pixels.
        width: of the input in pixels.

    Returns:
        "total", and of networks with window attention its parts "convolutions" and "attention": per pair of tokens and head the products
        <q, k>, <pos_q, pos_k> and p v, D + R + D, as the fused kernel does them. PyTorch's fused attention needs 2 (D + R).
        That is what SST-Real's total has.
    """
    with torch.device("meta"):
        network = network_from_config(config).eval()
        sizes = config.open_sizes(height, width) | {"batch": 1}
        inputs = [torch.empty(i.sizes(**sizes)) for i in config.inputs()]
    counter: Any = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network.reference(*inputs)
    counts = {str(op): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}
    if not isinstance(config, UpscalerConfig):
        return {"total": sum(counts.values())}
    convolutions = counts["aten.convolution"]
    attention = config.blocks * sum(
        round_up(height, layer.window[0])
        * round_up(width, layer.window[1])
        * layer.window[0]
        * layer.window[1]
        * layer.heads
        * (2 * layer.head_dim + layer.rank)
        for layer in config.attentions
    )
    return {"total": convolutions + attention, "convolutions": convolutions, "attention": attention}
