"""A process that has run a network in inference mode can train one: what is kept between calls serves both."""

from collections.abc import Callable

import pytest
import torch

from flashrib.model.architectures.registry import network_from_config, preset
from flashrib.model.network import Network
from tests.model.architectures.clear_dit.cases import network as clear
from tests.model.architectures.clear_dit.cases import tiny
from tests.model.networks import SMALL, SMALL_ESC, small_network
from tests.runtime.models import SMALL_REAL

NETWORKS: dict[str, Callable[[], Network]] = {
    "sst": lambda: small_network(SMALL),
    "esc-rib": lambda: small_network(SMALL_ESC),
    "sst-real": lambda: small_network(SMALL_REAL),
    "fibottention": lambda: network_from_config(preset("fibottention-tiny-16")),
    "clear": lambda: clear(tiny(ntk_factor=1.25)),  # with positions that no other test has asked for
}


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_then_training(name: str) -> None:
    network = NETWORKS[name]().requires_grad_(True)
    sides = network.config.open_sizes(24, 24)
    inputs = [torch.rand(tensor.sizes(**sides)) for tensor in network.config.inputs()]
    with torch.inference_mode():
        network.reference(*inputs)
    network.reference(*inputs).mean().backward()
    assert any(parameter.grad is not None for parameter in network.parameters())
