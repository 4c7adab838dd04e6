"""What a checkpoint is: the architecture from its keys, and from its shapes everything that shapes tell.

Shapes do not tell the sides of the windows, so networks that differ in nothing else (plain and Plus) look alike; and the x2 and x3
forms of the head "nn+conv" look alike. Whatever looks alike is reported as such and never guessed.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from flashrib.model.architectures.registry import network_from_config
from flashrib.model.config import (
    PRESETS,
    SCALES,
    ESCConfig,
    NetworkConfig,
    SSTConfig,
    UpsamplerConfig,
    UpsamplerType,
    Window,
    preset,
)
from flashrib.model.state_dict import first_ten
from flashrib.runtime.errors import CheckpointError

StateDict = Mapping[str, Tensor]
Layout = dict[str, Any]

SST_KEY = "body.0.0.attn.to_q"
ESC_KEY = "plk_filter"
SST_REAL_KEY = "model.map_noise.mlp.0.weight"

_LARGEST_SIZE = 4096  # one absurd shape must not make `_check_keys` build a network of terabytes

# SSTlight_DFLIP_X2, SST_Plus_DF2K_X4, ESCRIB_DFLIP_X3, ... and flashrib's own sst-light-x2; "(1)" is what browsers add.
_FILE_NAME = re.compile(r"(?:sst-?(light|large|xl)?(-plus)?|esc-?rib)(?:-(?:dflip|df2k|div2k))?-x([234])(?:-\(\d+\))?")


@dataclasses.dataclass(frozen=True)
class Recognised:
    """What the keys and shapes of a checkpoint tell.

    Attributes:
        layout: `layout_of` every configuration that the checkpoint fits.
        scales: magnifications that the head may have been trained for; more than one for the head "nn+conv" with one stage.
    """

    layout: Layout
    scales: tuple[int, ...]

    @property
    def family(self) -> str:
        return str(self.layout["family"])

    @property
    def layers(self) -> int:
        """Attention layers of a block, each with a window of its own."""
        return len(self.layout["heads"]) if self.family == "sst" else 1

    @property
    def candidates(self) -> tuple[str, ...]:
        """The presets that look like this."""
        return tuple(name for name in PRESETS if layout_of(preset(name)) == self.layout)

    def config(self, name: str, windows: tuple[Window, ...], scale: int) -> NetworkConfig:
        """Complete the configuration with what shapes do not tell."""
        values = dict(self.layout)
        family = values.pop("family")
        upsampler = UpsamplerConfig(values.pop("upsampler"), scale, values.pop("intermediate_dim"))
        if family == "sst":
            return SSTConfig(name, windows=windows, upsampler=upsampler, **values)
        return ESCConfig(name, window=windows[0], upsampler=upsampler, **values)


def layout_of(config: NetworkConfig) -> Layout:
    """Return the part of a configuration that shows in keys and shapes, except for the scale: field name -> value."""
    hidden = ("name", "window", "windows", "upsampler")
    layout: Layout = {"family": config.family}
    layout |= {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in hidden}
    head = config.upsampler if config.upsampler.kind != "pixelshuffle_direct" else UpsamplerConfig()
    return layout | {"upsampler": head.kind, "intermediate_dim": head.intermediate_dim}


def layout_differences(seen: Layout, wanted: Layout) -> str:
    """Say in which values two layouts differ, as "dim 48 instead of 180, ..."; empty where they agree."""
    keys = ("family",) if seen["family"] != wanted["family"] else tuple(wanted)
    return ", ".join(f"{key} {seen[key]} instead of {wanted[key]}" for key in keys if seen[key] != wanted[key])


def architecture_of(config: NetworkConfig) -> str:
    """Return the name of the preset that `config` is, or "sst-custom" or "esc-rib-custom"."""
    for name in PRESETS:
        if layout_of(preset(name)) == layout_of(config) and preset(name).windows == config.windows:
            return name
    return f"{config.family}-custom"


def architecture_from_file_name(path: Path) -> tuple[str, int] | None:
    """Return the preset and the scale that an official file name, or one of flashrib's own, stands for."""
    match = _FILE_NAME.fullmatch(re.sub(r"[\s_-]+", "-", path.stem.lower()))
    if match is None:
        return None
    size, plus, scale = match.groups()
    name = "esc-rib" if match[0].startswith("esc") else "sst" + (f"-{size}" if size else "") + (plus or "")
    return (name, int(scale)) if name in PRESETS else None


def candidates(state_dict: StateDict) -> tuple[str, ...]:
    """Return the presets whose keys and shapes are those of `state_dict`; see `recognise` for the errors."""
    return recognise(state_dict, "state dict").candidates


def recognise(state_dict: StateDict, source: str | Path) -> Recognised:
    """Read the architecture from the keys and its sizes from the shapes, and check that every key and shape belongs to it.

    Args:
        state_dict: key -> tensor; only the shapes are looked at.
        source: name of the file, for the error message.

    Raises:
        CheckpointError: keys of no known architecture, or of one that is not supported; missing, unexpected or misshapen keys.
    """
    if SST_REAL_KEY in state_dict:
        raise CheckpointError(f"{source}: an SST-Real checkpoint (key {SST_REAL_KEY!r}); SST-Real is not supported yet")
    if ESC_KEY in state_dict:
        read = _Reader(state_dict, source, "ESC-RIB")
        layout = _esc_layout(read)
    elif SST_KEY in state_dict:
        read = _Reader(state_dict, source, "SST")
        layout = _sst_layout(read)
    else:
        raise CheckpointError(
            f"{source}: keys of no architecture that flashrib knows (SST and ESC-RIB, both with RIB attention):"
            f" {first_ten([repr(key) for key in state_dict])}"
        )
    head, scales = _head(read)
    recognised = Recognised(layout | head, scales)
    _check_keys(read, recognised)
    return recognised


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads sizes out of a state dict, with an error for whatever is not there."""

    state_dict: StateDict
    source: str | Path
    family: str

    def shape(self, key: str, dims: int) -> tuple[int, ...]:
        """Shape of a tensor that must be there with `dims` axes."""
        if key not in self.state_dict:
            raise self.missing([key])
        shape = tuple(self.state_dict[key].shape)
        if len(shape) != dims or not all(1 <= size <= _LARGEST_SIZE for size in shape):
            raise CheckpointError(f"{self.source}: {key!r} has the shape {shape}, which no {self.family} network has")
        return shape

    def count(self, template: str) -> int:
        """Number of the indices that stand for "{}" in `template`; they must be 0, 1, 2, ..."""
        pattern = re.escape(template).replace(re.escape("{}"), "([0-9]{1,4})")
        indices = {int(match[1]) for key in self.state_dict if (match := re.fullmatch(pattern, key))}
        missing = [template.format(i) for i in range(max(indices, default=-1)) if i not in indices]
        if missing:
            raise self.missing(missing)
        return len(indices)

    def missing(self, keys: list[str]) -> CheckpointError:
        return CheckpointError(
            f"{self.source}: missing keys of an {self.family} network: {first_ten([repr(key) for key in keys])}"
        )

    def refuse(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.source}: no {self.family} network has {what}")

    def rib_and_gate(self, attention: str) -> Layout:
        """Values of the bias MLP and of the gate below the prefix `attention`."""
        features, hidden = self.shape(f"{attention}.to_hidden", 2)
        if features % 4 != 2:
            raise self.refuse(f"{features} coordinate features ({attention}.to_hidden), which must be 2 + 4 L")
        gate = next(
            (kind for i, kind in ((1, "DWC"), (0, "Linear")) if f"{attention}.gate.{i}.weight" in self.state_dict), None
        )
        return {"rib_hidden": hidden, "rib_freqs": (features - 2) // 4, "gate": gate}

    def heads_and_rank(self, attention: str, dim: int) -> tuple[int, int]:
        heads, _, rank = self.shape(f"{attention}.to_q", 3)
        if dim % heads:
            raise self.refuse(f"{heads} heads ({attention}.to_q) for {dim} channels")
        return heads, rank


def _sst_layout(read: _Reader) -> Layout:
    dim = read.shape("proj.weight", 4)[0]
    layers = read.count("body.0.{}.attn.to_q")
    heads, ranks = zip(*(read.heads_and_rank(f"body.0.{i}.attn", dim) for i in range(layers)), strict=True)
    return {
        "family": "sst",
        "dim": dim,
        "heads": heads,
        "ranks": ranks,
        "blocks": read.count("body.{}.0.attn.to_q"),
        "ffn_dim": read.shape("body.0.0.ffn.proj.weight", 4)[0],
        **read.rib_and_gate("body.0.0.attn"),
    }


def _esc_layout(read: _Reader) -> Layout:
    dim = read.shape("proj.weight", 4)[0]
    heads, rank = read.heads_and_rank("blocks.0.attn", dim)
    pdim, _, _, side = read.shape(ESC_KEY, 4)
    if not 2 <= pdim <= dim:
        raise read.refuse(f"{pdim} channels in the large-kernel convolution ({ESC_KEY}) out of {dim}")
    if side % 2 == 0:
        raise read.refuse(f"a kernel of even side {side} ({ESC_KEY})")
    return {
        "family": "esc-rib",
        "dim": dim,
        "pdim": pdim,
        "kernel_size": side,
        "blocks": read.count("blocks.{}.attn.to_q"),
        "conv_blocks": read.count("blocks.0.pconvs.{}.aggr.weight"),
        "heads": heads,
        "rank": rank,
        "ffn_dim": read.shape("blocks.0.convffns.0.proj.weight", 4)[0],
        **read.rib_and_gate("blocks.0.attn"),
        "use_ln": "blocks.0.lns.0.weight" in read.state_dict,
    }


def _head(read: _Reader) -> tuple[Layout, tuple[int, ...]]:
    """Kind and width of the upsampler, and the scales that it may have."""
    kind: UpsamplerType
    if "upsampler.f.0.weight" in read.state_dict:
        kind, channels = "nn+conv", read.shape("upsampler.f.0.weight", 4)[0]
        stages = sum(bool(re.fullmatch(r"upsampler\.f\.\d+\.weight", key)) for key in read.state_dict) - 2
        scales = {1: (2, 3), 2: (4,)}.get(stages)
        if scales is None:
            raise read.refuse(f"an upsampler of {stages} stages (upsampler.f.*)")
        return {"upsampler": kind, "intermediate_dim": channels}, scales
    outputs, inputs, _, _ = read.shape("upsampler.up_conv.weight", 4)
    if "upsampler.feature_conv.weight" in read.state_dict:
        kind, channels, groups = "pixelshuffle", inputs, inputs
    else:
        kind, channels, groups = "pixelshuffle_direct", UpsamplerConfig().intermediate_dim, 3
    scale = math.isqrt(outputs // groups)
    if scale not in SCALES or groups * scale**2 != outputs:
        raise read.refuse(f"{outputs} channels in upsampler.up_conv: expected {groups} times 4, 9 or 16")
    return {"upsampler": kind, "intermediate_dim": channels}, (scale,)


def _check_keys(read: _Reader, recognised: Recognised) -> None:
    """Compare all keys and shapes with those of the network; which windows it has makes no difference to them."""
    config = recognised.config("", ((1, 1),) * recognised.layers, recognised.scales[0])
    wanted = {key: tuple(value.shape) for key, value in network_from_config(config).state_dict().items()}
    seen = {key: tuple(value.shape) for key, value in read.state_dict.items()}
    wrong = [key for key in wanted if key in seen and seen[key] != wanted[key]]
    problems = [
        ("missing", [repr(key) for key in wanted if key not in seen]),
        ("unexpected", [repr(key) for key in seen if key not in wanted]),
        ("misshapen", [f"{key!r} {seen[key]} instead of {wanted[key]}" for key in wrong]),
    ]
    if any(keys for _, keys in problems):
        about = "; ".join(f"{len(keys)} {problem}: {first_ten(keys)}" for problem, keys in problems if keys)
        raise CheckpointError(f"{read.source}: not the keys and shapes of an {read.family} network: {about}")
