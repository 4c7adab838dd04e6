"""Checkpoints of super-resolution networks with windows: from keys and shapes everything that shapes tell, and the rest from elsewhere.

Shapes do not tell the sides of the windows, so networks that differ in nothing else (plain and Plus) look alike; and the x2 and x3
forms of the head "nn+conv" look alike. Whatever looks alike is reported as such and never guessed: the windows come from the header of
our own files, from the caller, or from a file name of the official pattern, in this order; otherwise loading is refused.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from flashrib.model.architectures.architecture import Architecture, Hints
from flashrib.model.architectures.reader import Layout, Reader
from flashrib.model.architectures.registry import preset, preset_from_file_name, presets
from flashrib.model.config import UpsamplerConfig, UpsamplerType, UpscalerConfig, Window
from flashrib.model.interpolate import resize_head
from flashrib.model.state_dict import ARCHITECTURE, Checkpoint
from flashrib.runtime.errors import CheckpointError

SCALE, WINDOWS = "flashrib.scale", "flashrib.windows"

_LARGEST_WINDOW = 1024  # a damaged header must not ask for a table of gigabytes


def file_name(stem: str, pattern: str) -> "re.Match[str] | None":
    """Match a stem with official names such as SSTlight_DFLIP_X2, or our own such as sst-light-x2, the last group being the scale.

    Args:
        stem: in lower case, "-" between words.
        pattern: of the name of the network.
    """
    # "(1)" is what browsers add
    return re.fullmatch(pattern + r"(?:-(?:dflip|df2k|div2k))?-x([234])(?:-\(\d+\))?", stem)


def header(config: UpscalerConfig) -> dict[str, str]:
    """What the header of a .safetensors file says besides the name, so that it can be loaded without hints."""
    return {SCALE: str(config.scale), WINDOWS: json.dumps([layer.window for layer in config.attentions])}


def layout_of(config: UpscalerConfig) -> Layout:
    """Return the part of a configuration that shows in keys and shapes, except for the scale: field name -> value."""
    hidden = ("name", "window", "windows", "upsampler")
    fields = dataclasses.fields(config)  # type: ignore[arg-type]  # every configuration is a dataclass
    layout: Layout = {"family": config.family}
    layout |= {field.name: getattr(config, field.name) for field in fields if field.name not in hidden}
    return layout | {"upsampler": config.upsampler.kind, "intermediate_dim": config.upsampler.intermediate_dim}


def layout_differences(seen: Layout, wanted: Layout) -> str:
    """Say in which values two layouts differ, as "dim 48 instead of 180, ..."; empty where they agree."""
    keys = ("family",) if seen["family"] != wanted["family"] else tuple(wanted)
    return ", ".join(f"{key} {seen[key]} instead of {wanted[key]}" for key in keys if seen[key] != wanted[key])


def head(read: Reader) -> tuple[Layout, tuple[int, ...]]:
    """Kind and width of the upsampler, and the scales that it may have."""
    kind: UpsamplerType
    if "upsampler.f.0.weight" in read.state_dict:
        kind, channels = "nn+conv", read.shape("upsampler.f.0.weight", 4)[0]
        stages = sum(bool(re.fullmatch(r"upsampler\.f\.\d+\.weight", key)) for key in read.state_dict) - 2
        scales = {0: (1,), 1: (2, 3), 2: (4,), 3: (8,)}.get(stages)
        if scales is None:
            raise read.refuse(f"an upsampler of {stages} stages (upsampler.f.*)")
        return {"upsampler": kind, "intermediate_dim": channels}, scales
    outputs, inputs, _, _ = read.shape("upsampler.up_conv.weight", 4)
    if "upsampler.feature_conv.weight" in read.state_dict:
        kind, channels, groups = "pixelshuffle", inputs, inputs
    else:
        kind, channels, groups = "pixelshuffle_direct", UpsamplerConfig().intermediate_dim, 3
    scale = math.isqrt(outputs // groups)
    if scale not in range(1, 9) or groups * scale**2 != outputs:
        raise read.refuse(
            f"{outputs} channels in upsampler.up_conv: expected {groups} times the square of a scale from 1 to 8"
        )
    return {"upsampler": kind, "intermediate_dim": channels}, (scale,)


def recognise(
    checkpoint: Checkpoint, architecture: Architecture, layout_from: Callable[[Reader], Layout]
) -> "RecognisedUpscaler":
    """Read the sizes of a network from the shapes, and check that every key and shape belongs to it.

    Args:
        checkpoint: whose state dict has keys of this architecture.
        architecture: that of the network.
        layout_from: reads all fields that `layout_of` has, but for the head's.

    Raises:
        CheckpointError: missing, unexpected or misshapen keys.
    """
    read = Reader(checkpoint.state_dict, checkpoint.path, architecture.title)
    layout = {"family": architecture.family} | layout_from(read)
    of_head, scales = head(read)
    recognised = RecognisedUpscaler(checkpoint, architecture, layout | of_head, scales)
    # which windows the network has makes no difference to keys and shapes
    config = recognised.config("", ((1, 1),) * recognised.layers, scales[0])
    read.check_keys(architecture.build(config).state_dict())
    return recognised


@dataclasses.dataclass(frozen=True)
class RecognisedUpscaler:
    """What the keys and shapes of a checkpoint tell; see `flashrib.model.architectures.architecture.Recognised`.

    Attributes:
        checkpoint: the file.
        architecture: that of the network.
        layout: `layout_of` every configuration that the checkpoint fits.
        scales: magnifications that the head may have been trained for; more than one for the head "nn+conv" with one stage.
    """

    checkpoint: Checkpoint
    architecture: Architecture
    layout: Layout
    scales: tuple[int, ...]

    @property
    def layers(self) -> int:
        """Attention layers of a block, each with a window of its own."""
        heads = self.layout["heads"]
        return len(heads) if isinstance(heads, tuple) else 1

    @property
    def candidates(self) -> tuple[str, ...]:
        """The presets that look like this."""
        row = self.architecture
        return tuple(name for name in row.presets if self._layout_of_preset(name) == self.layout)

    def config(self, name: str, windows: tuple[Window, ...], scale: int) -> UpscalerConfig:
        """Complete the configuration with what shapes do not tell."""
        values = dict(self.layout)
        del values["family"]
        upsampler = UpsamplerConfig(values.pop("upsampler"), scale, values.pop("intermediate_dim"))
        several = isinstance(self.layout["heads"], tuple)
        values |= {"windows": windows} if several else {"window": windows[0]}
        config = self.architecture.config(name=name, upsampler=upsampler, **values)  # type: ignore[call-arg]  # a dataclass
        assert isinstance(config, UpscalerConfig)
        return config

    def resolve(self, hints: Hints) -> tuple[UpscalerConfig, Mapping[str, Tensor]]:
        """See `Recognised.resolve`. A scale that is not the checkpoint's resizes the head by interpolation."""
        path = self.checkpoint.path
        if hints.config is None:
            chosen = self._architecture(hints.arch)
            if chosen is None:
                raise CheckpointError(f"{path}: {self._undetermined()}")
            (name, windows), wanted = chosen, hints.scale
        else:
            given = hints.config
            if not isinstance(given, UpscalerConfig):
                raise CheckpointError(
                    f"{path}: its shapes contradict the configuration passed: family"
                    f" {self.architecture.family} instead of {given.family}"
                )
            self._check_layout(layout_of(given), "the configuration passed")
            name, windows = given.name, tuple(layer.window for layer in given.attentions)
            wanted = given.scale
        trained = self._trained_scale(hints.arch)
        if trained is None and wanted in self.scales:
            trained = wanted
        if trained is None:
            alike = " and ".join(f"x{scale}" for scale in self.scales)
            raise CheckpointError(f"{path}: {alike} look alike with its head nn+conv: pass --scale")
        config = self.config(name, windows, wanted or trained)
        return config, self._weights(config, trained)

    def describe(self, hints: Hints) -> dict[str, Any]:
        """See `Recognised.describe`. Sides are in input pixels."""
        chosen = self._architecture(hints.arch)
        name, windows = chosen or (None, None)
        config = self.config(name or "", windows or ((1, 1),) * self.layers, self.scales[0])
        facts = config.facts()
        return {
            "architecture": name,
            "candidates": list(self.candidates),
            "scale": self._trained_scale(hints.arch),
            "windows": None if windows is None else [list(window) for window in windows],
            "ranks": list(facts["ranks"]),
            "heads": list(facts["heads"]),
            "dim": config.dim,
            "blocks": config.blocks,
            "gate": config.gate,
            "upsampler": config.upsampler.kind,
            "alignment": None if windows is None else config.alignment,
            "minimum": None if windows is None else config.minimum,
            "whole_picture": config.whole_picture,
        }

    def _layout_of_preset(self, name: str) -> Layout:
        config = preset(name)
        return layout_of(config) if isinstance(config, UpscalerConfig) else {"family": config.family}

    def _architecture(self, arch: str | None) -> tuple[str, tuple[Window, ...]] | None:
        """Name and windows, or None where nothing decides between the candidates; whoever names one must agree with the shapes."""
        path = self.checkpoint.path
        stated = self.checkpoint.metadata.get(ARCHITECTURE)
        windows = self._header_windows()
        if stated is not None:
            if arch not in (None, stated):
                raise CheckpointError(
                    f"{path}: its header says that it is {stated!r}, the argument says {arch!r}: leave the latter out"
                )
            name, who = stated, "its header"
        elif arch is not None:
            name, who = arch, "the argument"
        elif named := preset_from_file_name(path):
            name, who = named[0], "its file name"
        elif len(self.candidates) == 1:
            name, who = self.candidates[0], "its shape"
        else:
            return None
        if name not in presets():
            return None if windows is None else (f"{self.architecture.family}-custom", windows)
        self._check_layout(self._layout_of_preset(name), f"{name!r}, which is what {who} says")
        config = preset(name)
        assert isinstance(config, UpscalerConfig)
        known = tuple(layer.window for layer in config.attentions)
        if windows not in (None, known):
            raise CheckpointError(f"{path}: its header says {name!r}, but also windows {windows} instead of {known}")
        return name, known

    def _check_layout(self, wanted: Layout, what: str) -> None:
        differences = layout_differences(self.layout, wanted)
        if differences:
            fitting = f"; its shapes are those of {' or '.join(self.candidates)}" if self.candidates else ""
            raise CheckpointError(f"{self.checkpoint.path}: its shapes contradict {what}: {differences}{fitting}")

    def _undetermined(self) -> str:
        if self.candidates:
            names = " or ".join(self.candidates)
            return f"this may be {names}, which differ in their windows alone, and a checkpoint does not tell these: pass --arch"
        return (
            f"no preset has its sizes, and a checkpoint does not tell the {self.layers} windows of a block: pass"
            " load_model(path, config=...) and save_safetensors() the result, which stores them"
        )

    def _header_windows(self) -> tuple[Window, ...] | None:
        text = self.checkpoint.metadata.get(WINDOWS)
        if text is None:
            return None
        try:
            windows = tuple((int(rows), int(columns)) for rows, columns in json.loads(text))
        except (ValueError, TypeError, OverflowError, RecursionError):
            windows = ()
        sides_fit = all(1 <= side <= _LARGEST_WINDOW for window in windows for side in window)
        if len(windows) != self.layers or not sides_fit:
            raise CheckpointError(
                f"{self.checkpoint.path}: its header says {WINDOWS} = {text[:80]!r}, which is not a list of {self.layers} windows"
            )
        return windows

    def _trained_scale(self, arch: str | None) -> int | None:
        """Magnification that the checkpoint was trained for, or None where shapes leave a choice and nothing makes it."""
        path, metadata = self.checkpoint.path, self.checkpoint.metadata
        said = metadata.get(SCALE)
        if said is not None:
            stated, who = said, "header"
        elif arch is None and ARCHITECTURE not in metadata and (named := preset_from_file_name(path)):
            stated, who = str(named[1]), "file name"
        else:
            return self.scales[0] if len(self.scales) == 1 else None
        if stated not in map(str, self.scales):
            seen = " or ".join(f"x{scale}" for scale in self.scales)
            raise CheckpointError(f"{path}: its {who} says x{stated}, its shapes say {seen}")
        return int(stated)

    def _weights(self, config: UpscalerConfig, trained: int) -> Mapping[str, Tensor]:
        """Weights of `config` from a checkpoint that was trained for the scale `trained`."""
        if trained == config.scale:
            return self.checkpoint.state_dict
        if config.upsampler.kind == "nn+conv":
            raise CheckpointError(
                f"{self.checkpoint.path}: a head nn+conv trained for x{trained} cannot be resized to x{config.scale}"
            )
        return resize_head(self.checkpoint.state_dict, trained, config.scale)
