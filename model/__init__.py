"""Networks, checkpoints, the attention operator, folding and training (PyTorch)."""

from typing import TYPE_CHECKING, Any

from flashrib.runtime.lazy import lazy_names

if TYPE_CHECKING:
    from flashrib.model.architectures.esc.config import ESCConfig
    from flashrib.model.architectures.registry import build_model, network_from_config, preset, presets, register
    from flashrib.model.architectures.sst.config import SSTConfig
    from flashrib.model.attention.window import window_attention
    from flashrib.model.checkpoint import describe_checkpoint, load_model, save_safetensors
    from flashrib.model.config import NetworkConfig, UpsamplerConfig
    from flashrib.model.network import Network

    PRESETS: tuple[str, ...]

# name: module that it is imported from when it is asked for, so that whoever needs the table of architectures need not have torch
_HOMES = {
    "ESCConfig": "architectures.esc.config",
    "Network": "network",
    "NetworkConfig": "config",
    "SSTConfig": "architectures.sst.config",
    "UpsamplerConfig": "config",
    "build_model": "architectures.registry",
    "describe_checkpoint": "checkpoint",
    "load_model": "checkpoint",
    "network_from_config": "architectures.registry",
    "preset": "architectures.registry",
    "presets": "architectures.registry",
    "register": "architectures.registry",
    "save_safetensors": "checkpoint",
    "window_attention": "attention.window",
}

__all__ = [
    "PRESETS",
    "ESCConfig",
    "Network",
    "NetworkConfig",
    "SSTConfig",
    "UpsamplerConfig",
    "build_model",
    "describe_checkpoint",
    "load_model",
    "network_from_config",
    "preset",
    "presets",
    "register",
    "save_safetensors",
    "window_attention",
]


_load, __dir__ = lazy_names(globals(), _HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name; `PRESETS`, the names of all super-resolution networks, follows the table of architectures."""
    if name == "PRESETS":
        from flashrib.model.architectures.registry import presets

        return presets("upscale")
    return _load(name)
