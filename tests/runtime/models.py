"""Tiny models for the tests of sessions and commands."""

from pathlib import Path
from typing import Any

from flashrib.model.checkpoint import save_safetensors
from flashrib.model.config import NetworkConfig
from flashrib.model.network import Network
from tests.model.networks import SMALL, small_network
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
