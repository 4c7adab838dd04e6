"""Configuration -> network."""

from flashrib.model.architectures.esc.network import ESC
from flashrib.model.architectures.sst.network import SST
from flashrib.model.config import ESCConfig, NetworkConfig, SSTConfig, preset

Network = SST | ESC


def network_from_config(config: NetworkConfig) -> Network:
    """Return a freshly initialised network of the given configuration, in training mode."""
    match config:
        case SSTConfig():
            return SST(config)
        case ESCConfig():
            return ESC(config)


def build_model(name: str, scale: int = 2) -> Network:
    """Return a freshly initialised preset, in eval mode, with its configuration as `.config`.

    Args:
        name: one of `flashrib.model.PRESETS`, such as "sst-plus".
        scale: magnification 2, 3 or 4.

    Raises:
        UsageError: no such preset or scale.
    """
    return network_from_config(preset(name, scale)).eval()
