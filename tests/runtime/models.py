"""Tiny models for the tests of sessions and commands."""

from pathlib import Path
from typing import Any

import torch

from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import save_safetensors
from flashrib.model.config import NetworkConfig
from flashrib.model.network import Network
from tests.model.architectures.sst_real.test_recognise import SMALL as SMALL_REAL
from tests.model.networks import SMALL, small_network
from tests.official import seeded
from tests.runtime.sessions.test_onnxruntime import nearest


def write_onnx(path: Path, **options: Any) -> Path:
    """An ONNX file that repeats every pixel twice on both axes; options as for `nearest`."""
    path.write_bytes(nearest(**options).SerializeToString())
    return path


def write_checkpoint(path: Path, config: NetworkConfig = SMALL) -> Network:
    """A checkpoint that says itself what it is; returns its network."""
    network = small_network(config)
    save_safetensors(path, network)
    return network


def write_real(path: Path) -> Path:
    """A checkpoint of a small SST-Real, which takes noise."""
    network, random = network_from_config(SMALL_REAL), seeded(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    save_safetensors(path, network)
    return path
