"""What a package is built for, and what does not go together; imports nothing heavy, so that the command line can ask."""

import dataclasses

from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.errors import UsageError

PRECISIONS = ("fp32", "fp16", "bf16")
TARGETS = ("current", "cpu")

USUAL_SIDE = 768
"""Pixels of a side by default: whole windows of all presets; of 768x768, 640x640 are no halo."""


@dataclasses.dataclass(frozen=True)
class PackageOptions:
    """Properties of a package.

    Attributes:
        precision: one of `PRECISIONS`.
        size: (H, W) of the input in pixels; None: `USUAL_SIDE`, in whole windows.
        target: "current", the GPU of this machine, or "cpu".
        noise: see `flashrib.model.network.Network.with_noise`.

    Raises:
        UsageError: a value that is not possible, or two that contradict each other.
    """

    precision: str = "fp16"
    size: Side | None = None
    target: str = "current"
    noise: str | int = "input"

    def __post_init__(self) -> None:
        for name, possible in (("precision", PRECISIONS), ("target", TARGETS)):
            if getattr(self, name) not in possible:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {', '.join(possible)}")
        if self.target == "cpu" and self.precision != "fp32":
            raise UsageError(f"--precision {self.precision}: a package for the CPU computes in fp32")
