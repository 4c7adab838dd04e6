"""What an artifact says about the network that it was made from."""

from importlib.metadata import version
from typing import Any

from flashrib.model.network import Network
from flashrib.runtime.artifacts.info import ModelInfo, info_of


def describe_network(network: Network, **rest: Any) -> ModelInfo:
    """Return the metadata of an artifact made from `network`; `rest` are the fields that tell how it was made."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return info_of(network.config, parameters, version=version("flashrib"), **rest)
