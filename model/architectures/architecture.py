"""The row of the table of architectures. Needs no torch: what does is imported when it is called."""

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from flashrib.model.config import NetworkConfig

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from flashrib.model.deploy import Deployed
    from flashrib.model.network import Network
    from flashrib.model.state_dict import Checkpoint

CONFIG = "flashrib.config"  # in the header of our own .safetensors files


@dataclasses.dataclass(frozen=True)
class Hints:
    """What a caller of `load_model` says about a checkpoint; None where it says nothing.

    Attributes:
        arch: name of a preset.
        scale: magnification.
        config: the whole configuration; excludes `arch`.
    """

    arch: str | None = None
    scale: int | None = None
    config: NetworkConfig | None = None


class Recognised(Protocol):
    """A checkpoint whose keys and shapes have been found to be those of an architecture."""

    def resolve(self, hints: Hints) -> "tuple[NetworkConfig, Mapping[str, Tensor]]":
        """The configuration, and the weights under the network's names.

        Raises:
            CheckpointError: neither the file nor `hints` say what shapes do not tell, or they contradict each other.
        """

    def describe(self, hints: Hints) -> dict[str, Any]:
        """What is known, in JSON's types, for `flashrib info`; None for what is not known. May be less than loading needs.

        "file", "family", "parameters", "dtype" and "sha256" are added by `flashrib.model.checkpoint.describe_checkpoint`.
        """


class Fold(Protocol):
    """Training form -> deployment form, see `flashrib.model.fold.fold`."""

    def __call__(self, network: Any, *, head_multiple: int, dtype: "torch.dtype") -> "Deployed": ...


def lazy(module: str, name: str) -> Callable[..., Any]:
    """The function `name` of `module`, which is imported when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*args, **kwargs)

    return call


def json_header(config: NetworkConfig) -> dict[str, str]:
    """Header of a .safetensors file that holds the whole configuration."""
    values: dict[str, Any] = dataclasses.asdict(config)  # type: ignore[call-overload]  # every configuration is a dataclass
    return {CONFIG: json.dumps(values)}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A family of networks.

    Attributes:
        family: its name, such as "sst"; a network that is no preset is called "<family>-custom".
        title: its name in messages, with the indefinite article: "an SST".
        config: type of its configurations.
        presets: names of its official configurations.
        preset: name of one of them and magnification -> configuration.
        scales: magnifications that there are, the usual one first; (1,) where nothing is magnified.
        matches: keys of a checkpoint -> whether they are this architecture's; only a key or two are looked at.
        recognise: reads all keys and shapes of a checkpoint; CheckpointError where one does not fit.
        build: configuration -> network, freshly initialised, in training mode.
        fold: network -> deployment form.
        gpu: network and dtype -> the network for a CUDA GPU; None: there is no such form, and GPUs take the deployment form.
        file_name: stem of a file's name, in lower case with "-" between words -> preset and magnification that it stands for, or None.
        header: configuration -> what a .safetensors file says besides the name, so that it can be loaded without hints.
        pictures: configuration -> file names and pictures (H, W, 3), uint8, of what its attention sees, for `info --pictures`; None where
            there is nothing to draw.
        config_of_facts: `architecture_config` and heads of an artifact -> a configuration that `pictures` draws; None as above.
        kept: names of products in an exported file that calibration leaves as they are -> why; "*" stands for anything.
    """

    family: str
    title: str
    config: type[NetworkConfig]
    presets: tuple[str, ...]
    preset: Callable[[str, int], NetworkConfig]
    matches: Callable[[Mapping[str, Any]], bool]
    recognise: "Callable[[Checkpoint], Recognised]"
    build: "Callable[[Any], Network]"
    fold: Fold
    gpu: "Callable[[Any, torch.dtype], nn.Module] | None" = None
    scales: tuple[int, ...] = (1,)
    file_name: Callable[[str], tuple[str, int] | None] = lambda stem: None
    header: Callable[[Any], dict[str, str]] = json_header
    pictures: "Callable[[Any], Iterable[tuple[str, NDArray[np.uint8]]]] | None" = None
    config_of_facts: Callable[[Mapping[str, Any]], NetworkConfig] | None = None
    kept: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def task(self) -> str:
        return self.config.task
