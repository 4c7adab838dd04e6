"""Checkpoints -> networks, and networks -> .safetensors. What a checkpoint's shapes do not tell is asked of its architecture's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from flashrib.model.architectures.architecture import Hints
from flashrib.model.architectures.recognise import identify, recognise
from flashrib.model.architectures.registry import (
    ARCHITECTURES,
    architecture_of,
    name_of,
    network_from_config,
    preset,
)
from flashrib.model.config import NetworkConfig
from flashrib.model.network import Network
from flashrib.model.state_dict import (
    ARCHITECTURE,
    WEIGHTS_HASH,
    read_checkpoint,
    read_state_dict,
    sha256_of,
    weights_hash,
)
from flashrib.runtime.artifacts.files import write_whole
from flashrib.runtime.errors import CheckpointError, UsageError

__all__ = ["describe_checkpoint", "load_model", "read_state_dict", "save_safetensors", "sha256_of"]


def load_model(
    path: str | Path,
    arch: str | None = None,
    scale: int | None = None,
    config: NetworkConfig | None = None,
    key: str | None = None,
) -> Network:
    """Load a checkpoint into its network, in float32 on the CPU, in eval mode, with its configuration as `.config`.

    Args:
        path: a .pth, .pt or .safetensors file.
        arch: one of `flashrib.model.PRESETS`. Needed where shapes leave a choice (plain or Plus windows) and neither the header of
            the file nor its name (official, or `<preset>-x<scale>`) makes it.
        scale: magnification 2, 3 or 4; None takes the checkpoint's. Another one resizes the head by interpolation, which starts a
            fine-tuning and is not a trained network.
        config: the full configuration, for networks that are no preset; excludes `arch`.
        key: where in the file the network is, such as "state_dict.generator"; see `read_checkpoint`.

    Raises:
        CheckpointError: see `read_state_dict` and `flashrib.model.architectures.recognise.recognise`; also a choice that is not made, or
            that contradicts the file.
        UsageError: no such `arch` or `scale`, or arguments that contradict each other.
    """
    hints = _hints(arch, scale, config)
    resolved, weights = recognise(read_checkpoint(path, key)).resolve(hints)
    network = network_from_config(resolved)
    network.load_state_dict(weights)
    return network.eval()


def save_safetensors(path: str | Path, network: Network, extra_metadata: Mapping[str, str] | None = None) -> None:
    """Write a network's parameters, and in the header what shapes do not tell, so that `load_model` needs no hint.

    The file appears under its name once it is complete; an older one is replaced.

    Args:
        path: where to; conventionally `<preset>-x<scale>.safetensors`.
        network: any network of flashrib; tensors are stored in the dtype that they have.
        extra_metadata: further entries of the header, such as the training's; flashrib's own take precedence.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    config = network.config
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    header = {
        **(extra_metadata or {}),
        ARCHITECTURE: name_of(config),
        **architecture_of(config).header(config),
        WEIGHTS_HASH: weights_hash(tensors),
    }
    write_whole(path, safetensors.torch.save(tensors, header), CheckpointError)


def describe_checkpoint(path: str | Path, arch: str | None = None, key: str | None = None) -> dict[str, Any]:
    """Return what is known about a checkpoint, in JSON's types.

    Where neither the file nor `arch` says which of the `candidates` it is, `architecture`, `windows`, `alignment` and `minimum` are
    None; the same for a `scale` that cannot be told. Sides are in input pixels. Errors as for `load_model`.
    """
    hints = _hints(arch, None, None)
    row, checkpoint = identify(read_checkpoint(path, key))
    return {
        "file": str(path),
        "family": row.family,
        **row.recognise(checkpoint).describe(hints),
        "parameters": sum(value.numel() for value in checkpoint.state_dict.values()),
        "dtype": checkpoint.dtype,
        "sha256": sha256_of(path),
    }


def _hints(arch: str | None, scale: int | None, config: NetworkConfig | None) -> Hints:
    if arch is not None:
        preset(arch)
    scales = sorted({one for row in ARCHITECTURES.values() for one in row.scales if one > 1})
    if scale is not None and scale not in scales:
        raise UsageError(f"scale {scale} is not one of {', '.join(map(str, scales))}")
    if config is not None and arch is not None:
        raise UsageError(f"pass either arch ({arch!r}) or config ({config.name!r}), not both")
    if config is not None and scale not in (None, config.scale):
        raise UsageError(f"scale {scale} contradicts the configuration's scale {config.scale}")
    return Hints(arch, scale, config)
