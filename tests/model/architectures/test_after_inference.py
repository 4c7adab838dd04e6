"""A process that has run a network in inference mode can train one: what is kept between calls serves both."""

import pytest
import torch

from flashrib.model.architectures.clear_dit.network import rotation
from tests.model.every_network import EVERY


@pytest.mark.parametrize("name", EVERY)
def test_inference_then_training(name: str) -> None:
    rotation.cache_clear()  # other tests may have asked for the same positions
    network = EVERY[name]().requires_grad_(True)
    sides = network.config.open_sizes(24, 24)
    inputs = [torch.rand(tensor.sizes(**sides)) for tensor in network.config.inputs()]
    with torch.inference_mode():
        network.reference(*inputs)
    network.reference(*inputs).mean().backward()
    assert any(parameter.grad is not None for parameter in network.parameters())
