"""What an artifact says about the network that it was made from."""

from importlib.metadata import version
from typing import Any

from flashrib.model.architectures.registry import Network
from flashrib.runtime.artifacts.info import ModelMetadata


def describe_network(network: Network, **rest: Any) -> ModelMetadata:
    """Return the metadata of an artifact made from `network`; `rest` are the fields that tell how it was made."""
    config = network.config
    return ModelMetadata(
        architecture=config.name,
        scale=config.scale,
        alignment=config.alignment,
        minimum=config.minimum,
        windows=config.windows,
        ranks=config.ranks,
        heads=config.heads if isinstance(config.heads, tuple) else (config.heads,),
        parameters=sum(p.numel() for p in network.parameters()),
        whole_picture=config.whole_picture,
        version=version("flashrib"),
        **rest,
    )
