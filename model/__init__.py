"""Networks, checkpoints, the attention operator, folding and training (PyTorch)."""

from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """Import a public name; `PRESETS` are the names of all official super-resolution networks."""
    import importlib

    if name == "PRESETS":
        return importlib.import_module("flashrib.model.architectures.registry").presets("upscale")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"flashrib.model.{_HOMES[name]}"), name)
