"""The table of architectures, and what is asked of it. Needs no torch until a network is built.

Another architecture is a folder like `sst/` and a row here; one from outside is added with `register`
(docs/howto/add-an-architecture.md).
"""

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

from flashrib.model.architectures.architecture import Architecture
from flashrib.model.architectures.clear_dit import ARCHITECTURE as CLEAR
from flashrib.model.architectures.esc import ARCHITECTURE as ESC_RIB
from flashrib.model.architectures.fibottention_vit import ARCHITECTURE as FIBOTTENTION
from flashrib.model.architectures.sst import ARCHITECTURE as SST
from flashrib.model.architectures.sst_real import ARCHITECTURE as SST_REAL
from flashrib.model.config import NetworkConfig
from flashrib.runtime.errors import UsageError

if TYPE_CHECKING:
    from flashrib.model.network import Network

ARCHITECTURES: dict[str, Architecture] = {row.family: row for row in (SST, ESC_RIB, SST_REAL, FIBOTTENTION, CLEAR)}


def register(architecture: Architecture) -> None:
    """Add an architecture for the rest of the process.

    Raises:
        UsageError: there is one of this family, or a preset of one of its names.
    """
    taken = set(ARCHITECTURES) | set(presets())
    if clash := sorted({architecture.family, *architecture.presets} & taken):
        raise UsageError(f"an architecture or preset {clash[0]!r} is registered already: choose another name")
    ARCHITECTURES[architecture.family] = architecture


def presets(task: str | None = None) -> tuple[str, ...]:
    """Names of the presets of all architectures, or of those with the task "upscale", "classify" or "denoise"."""
    return tuple(name for row in ARCHITECTURES.values() if task in (None, row.task) for name in row.presets)


def architecture_named(name: str) -> Architecture:
    """Return the architecture that the preset `name`, or "<family>-custom", belongs to.

    Raises:
        UsageError: none.
    """
    for row in ARCHITECTURES.values():
        if name in row.presets or name == f"{row.family}-custom":
            return row
    raise UsageError(f"unknown architecture {name!r}: choose one of {', '.join(presets())}")


def architecture_of(config: NetworkConfig) -> Architecture:
    """Return the architecture that a configuration belongs to."""
    if config.family not in ARCHITECTURES:
        raise UsageError(f"no architecture of the family {config.family!r} is registered")
    return ARCHITECTURES[config.family]


def preset(name: str, scale: int | None = None) -> NetworkConfig:
    """Return the official configuration `name` for magnification `scale`; None takes the usual one.

    Raises:
        UsageError: no such preset or scale.
    """
    row = architecture_named(name)
    if name not in row.presets:
        raise UsageError(f"unknown architecture {name!r}: choose one of {', '.join(presets())}")
    if scale is not None and scale not in row.scales:
        raise UsageError(f"scale {scale} is not one of {', '.join(map(str, row.scales))}")
    return row.preset(name, scale or row.scales[0])


def name_of(config: NetworkConfig) -> str:
    """Return the name of the preset that `config` is, or "<family>-custom"."""
    row = architecture_of(config)
    for name in row.presets:
        if dataclasses.replace(config, name=name) == row.preset(name, config.scale):  # type: ignore[type-var]  # a dataclass
            return name
    return f"{row.family}-custom"


def preset_from_file_name(path: Path) -> tuple[str, int] | None:
    """Return the preset and the scale that an official file name, or one of flashrib's own, stands for."""
    stem = re.sub(r"[\s_-]+", "-", path.stem.lower())
    found = (row.file_name(stem) for row in ARCHITECTURES.values())
    return next((named for named in found if named is not None), None)


def network_from_config(config: NetworkConfig) -> "Network":
    """Return a network of the given configuration with random weights, in training mode."""
    return architecture_of(config).build(config)


def build_model(name: str, scale: int | None = None) -> "Network":
    """Return a preset with the random weights that its official training starts from, in eval mode, its configuration as `.config`.

    Args:
        name: one of `flashrib.model.PRESETS`, such as "sst-plus".
        scale: magnification, such as 2, 3 or 4; None takes the usual one, 2 for SST and ESC-RIB.

    Raises:
        UsageError: no such preset or scale.
    """
    network = network_from_config(preset(name, scale))
    network.initialise()
    return network.eval()
