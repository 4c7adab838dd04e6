"""Checkpoints -> networks, and networks -> .safetensors.

The one thing that a checkpoint's shapes do not tell, the sides of the windows, comes from the header of our own files, from the
caller, or from a file name of the official pattern, in this order; where these are silent and more than one preset fits, loading
is refused.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from flashrib.model.architectures.recognise import (
    Recognised,
    architecture_from_file_name,
    architecture_of,
    layout_differences,
    layout_of,
    recognise,
)
from flashrib.model.architectures.registry import Network, network_from_config
from flashrib.model.config import PRESETS, SCALES, NetworkConfig, Window, preset
from flashrib.model.interpolate import resize_head
from flashrib.model.state_dict import Checkpoint, read_checkpoint, read_state_dict, sha256_of
from flashrib.runtime.errors import CheckpointError, UsageError

__all__ = ["describe_checkpoint", "load_model", "read_state_dict", "save_safetensors", "sha256_of"]

# The header of our own .safetensors files says what shapes cannot tell.
ARCHITECTURE, SCALE, WINDOWS = "flashrib.architecture", "flashrib.scale", "flashrib.windows"

_LARGEST_WINDOW = 1024  # a damaged header must not ask for a table of gigabytes


def load_model(
    path: str | Path, arch: str | None = None, scale: int | None = None, config: NetworkConfig | None = None
) -> Network:
    """Load a checkpoint into its network, in float32 on the CPU, in eval mode, with its configuration as `.config`.

    Args:
        path: a .pth, .pt or .safetensors file.
        arch: one of `flashrib.model.PRESETS`. Needed where shapes leave a choice (plain or Plus windows) and neither the header of
            the file nor its name (official, or `<preset>-x<scale>`) makes it.
        scale: magnification 2, 3 or 4; None takes the checkpoint's. Another one resizes the head by interpolation, which starts a
            fine-tuning and is not a trained network.
        config: the full configuration, for networks that are no preset; excludes `arch`.

    Raises:
        CheckpointError: see `read_state_dict` and `flashrib.model.architectures.recognise.recognise`; also a choice that is not made, or
            that contradicts the file.
        UsageError: no such `arch` or `scale`, or arguments that contradict each other.
    """
    _check_arguments(arch, scale, config)
    checkpoint = read_checkpoint(path)
    recognised = recognise(checkpoint.state_dict, checkpoint.path)
    if config is None:
        chosen = _architecture(checkpoint, recognised, arch)
        if chosen is None:
            raise CheckpointError(f"{checkpoint.path}: {_undetermined(recognised)}")
        (name, windows), wanted = chosen, scale
    else:
        _check_layout(checkpoint.path, recognised, layout_of(config), "the configuration passed")
        name, windows, wanted = config.name, config.windows, config.scale
    trained = _trained_scale(checkpoint, recognised, arch)
    if trained is None and wanted in recognised.scales:
        trained = wanted
    if trained is None:
        alike = " and ".join(f"x{scale}" for scale in recognised.scales)
        raise CheckpointError(f"{checkpoint.path}: {alike} look alike with its head nn+conv: pass --scale")
    return _build(checkpoint, recognised.config(name, windows, wanted or trained), trained)


def save_safetensors(path: str | Path, network: Network, extra_metadata: Mapping[str, str] | None = None) -> None:
    """Write a network's parameters, and in the header its architecture, scale and windows, so that `load_model` needs no hint.

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
    header = {
        **(extra_metadata or {}),
        ARCHITECTURE: architecture_of(config),
        SCALE: str(config.scale),
        WINDOWS: json.dumps(config.windows),
    }
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    content = safetensors.torch.save(tensors, header)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error
        raise


def describe_checkpoint(path: str | Path, arch: str | None = None) -> dict[str, Any]:
    """Return what is known about a checkpoint, in JSON's types.

    Where neither the file nor `arch` says which of the `candidates` it is, `architecture`, `windows`, `alignment` and `minimum` are
    None; the same for a `scale` that cannot be told. Sides are in input pixels. Errors as for `load_model`.
    """
    _check_arguments(arch, None, None)
    checkpoint = read_checkpoint(path)
    recognised = recognise(checkpoint.state_dict, checkpoint.path)
    chosen = _architecture(checkpoint, recognised, arch)
    name, windows = chosen or (None, None)
    config = recognised.config(name or "", windows or ((1, 1),) * recognised.layers, recognised.scales[0])
    layout = recognised.layout
    esc = recognised.family == "esc-rib"
    return {
        "file": str(path),
        "family": recognised.family,
        "architecture": name,
        "candidates": list(recognised.candidates),
        "scale": _trained_scale(checkpoint, recognised, arch),
        "windows": None if windows is None else [list(window) for window in windows],
        "ranks": list(config.ranks),
        "heads": [layout["heads"]] if esc else list(layout["heads"]),
        "dim": config.dim,
        "blocks": config.blocks,
        "gate": config.gate,
        "upsampler": config.upsampler.kind,
        "parameters": sum(value.numel() for value in checkpoint.state_dict.values()),
        "alignment": None if windows is None else config.alignment,
        "minimum": None if windows is None else config.minimum,
        "whole_picture": config.whole_picture,
        "dtype": checkpoint.dtype,
        "sha256": sha256_of(path),
    }


def _check_arguments(arch: str | None, scale: int | None, config: NetworkConfig | None) -> None:
    if arch is not None:
        preset(arch)
    if scale is not None and scale not in SCALES:
        raise UsageError(f"scale {scale} is not one of {', '.join(map(str, SCALES))}")
    if config is not None and arch is not None:
        raise UsageError(f"pass either arch ({arch!r}) or config ({config.name!r}), not both")
    if config is not None and scale not in (None, config.scale):
        raise UsageError(f"scale {scale} contradicts the configuration's scale {config.scale}")


def _architecture(
    checkpoint: Checkpoint, recognised: Recognised, arch: str | None
) -> tuple[str, tuple[Window, ...]] | None:
    """Name and windows, or None where nothing decides between the candidates; whoever names one must agree with the shapes."""
    path = checkpoint.path
    header = checkpoint.metadata.get(ARCHITECTURE)
    windows = _header_windows(checkpoint, recognised)
    if header is not None:
        if arch not in (None, header):
            raise CheckpointError(
                f"{path}: its header says that it is {header!r}, the argument says {arch!r}: leave the latter out"
            )
        name, who = header, "its header"
    elif arch is not None:
        name, who = arch, "the argument"
    elif named := architecture_from_file_name(path):
        name, who = named[0], "its file name"
    elif len(recognised.candidates) == 1:
        name, who = recognised.candidates[0], "its shape"
    else:
        return None
    if name not in PRESETS:
        return None if windows is None else (f"{recognised.family}-custom", windows)
    config = preset(name)
    _check_layout(path, recognised, layout_of(config), f"{name!r}, which is what {who} says")
    if windows not in (None, config.windows):
        raise CheckpointError(
            f"{path}: its header says {name!r}, but also windows {windows} instead of {config.windows}"
        )
    return name, config.windows


def _check_layout(path: Path, recognised: Recognised, wanted: dict[str, Any], what: str) -> None:
    differences = layout_differences(recognised.layout, wanted)
    if differences:
        fitting = f"; its shapes are those of {' or '.join(recognised.candidates)}" if recognised.candidates else ""
        raise CheckpointError(f"{path}: its shapes contradict {what}: {differences}{fitting}")


def _undetermined(recognised: Recognised) -> str:
    if recognised.candidates:
        names = " or ".join(recognised.candidates)
        return f"this may be {names}, which differ in their windows alone, and a checkpoint does not tell these: pass --arch"
    return (
        f"no preset has its sizes, and a checkpoint does not tell the {recognised.layers} windows of a block: pass"
        " load_model(path, config=...) and save_safetensors() the result, which stores them"
    )


def _header_windows(checkpoint: Checkpoint, recognised: Recognised) -> tuple[Window, ...] | None:
    text = checkpoint.metadata.get(WINDOWS)
    if text is None:
        return None
    try:
        windows = tuple((int(rows), int(columns)) for rows, columns in json.loads(text))
    except (ValueError, TypeError, OverflowError, RecursionError):
        windows = ()
    sides_fit = all(1 <= side <= _LARGEST_WINDOW for window in windows for side in window)
    if len(windows) != recognised.layers or not sides_fit:
        raise CheckpointError(
            f"{checkpoint.path}: its header says {WINDOWS} = {text[:80]!r}, which is not a list of {recognised.layers} windows"
        )
    return windows


def _trained_scale(checkpoint: Checkpoint, recognised: Recognised, arch: str | None) -> int | None:
    """Magnification that the checkpoint was trained for, or None where shapes leave a choice and nothing makes it."""
    header = checkpoint.metadata.get(SCALE)
    if header is not None:
        stated, who = header, "header"
    elif (
        arch is None
        and ARCHITECTURE not in checkpoint.metadata
        and (named := architecture_from_file_name(checkpoint.path))
    ):
        stated, who = str(named[1]), "file name"
    else:
        return recognised.scales[0] if len(recognised.scales) == 1 else None
    if stated not in map(str, recognised.scales):
        seen = " or ".join(f"x{scale}" for scale in recognised.scales)
        raise CheckpointError(f"{checkpoint.path}: its {who} says x{stated}, its shapes say {seen}")
    return int(stated)


def _build(checkpoint: Checkpoint, config: NetworkConfig, trained: int) -> Network:
    """Network of `config` with the weights of a checkpoint that was trained for the scale `trained`."""
    state_dict = checkpoint.state_dict
    if trained != config.scale:
        if config.upsampler.kind == "nn+conv":
            raise CheckpointError(
                f"{checkpoint.path}: a head nn+conv trained for x{trained} cannot be resized to x{config.scale}"
            )
        state_dict = resize_head(state_dict, trained, config.scale)
    network = network_from_config(config)
    network.load_state_dict(state_dict)
    return network.eval()
