"""Networks, checkpoints, the attention operator, folding and training (PyTorch)."""

from flashrib.model.architectures.registry import Network, build_model
from flashrib.model.attention.window import window_attention
from flashrib.model.checkpoint import describe_checkpoint, load_model, save_safetensors
from flashrib.model.config import PRESETS, ESCConfig, NetworkConfig, SSTConfig, UpsamplerConfig, preset

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
    "preset",
    "save_safetensors",
    "window_attention",
]
