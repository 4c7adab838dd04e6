"""Small networks for the tests of this folder."""

import dataclasses

import torch
from torch import Tensor

from flashrib.model import ESCConfig, SSTConfig
from flashrib.model.architectures.registry import network_from_config, preset
from flashrib.model.config import NetworkConfig
from flashrib.model.network import Network
from tests.official import seeded

SMALL = SSTConfig("sst-custom", 12, ((4, 4), (8, 6)), heads=(3, 2), ranks=(3, 5), blocks=1, ffn_dim=18, rib_hidden=8)
SMALL_ESC = ESCConfig(
    "esc-rib-custom", dim=12, pdim=4, kernel_size=5, blocks=1, conv_blocks=1, window=(8, 6), heads=2, rank=3, ffn_dim=15
)


def small_network(config: NetworkConfig = SMALL, seed: int = 0) -> Network:
    """A network all of whose parameters are random, biases too."""
    network = network_from_config(config).eval()
    random = seeded(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=random) - 0.5)
    return network


def two_blocks(name: str, scale: int) -> Network:
    """A preset of SST or ESC-RIB as `build_model` makes it, but with two of its blocks, which are all alike."""
    config = preset(name, scale)
    assert isinstance(config, SSTConfig | ESCConfig)
    network = network_from_config(dataclasses.replace(config, blocks=2))
    network.initialise()
    return network.eval()


def same(network: Network, state_dict: dict[str, Tensor]) -> bool:
    ours = network.state_dict()
    return ours.keys() == state_dict.keys() and all(torch.equal(ours[key], state_dict[key]) for key in ours)
