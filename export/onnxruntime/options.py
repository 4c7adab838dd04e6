"""What a library of custom operators is built for; imports nothing heavy, so that the command line can ask."""

import dataclasses
import re

from flashrib.runtime.artifacts.engine import Side
from flashrib.runtime.errors import UsageError

CURRENT = "current"
TARGETS = ("sm80", "sm86", "sm89", "sm90", "sm120")
"""Compute capabilities that a library is built for where nothing else is asked for."""

PRECISIONS = ("fp32", "fp16", "bf16")


@dataclasses.dataclass(frozen=True)
class LibraryOptions:
    """Properties of an ONNX file with a library.

    Attributes:
        targets: "sm80", ..., or "current" alone, the first GPU of this machine.
        precision: of a file made from a checkpoint; None: fp16.
        size: (H, W) of its input in pixels; None leaves both dynamic.
        noise: of a file made from a checkpoint; see `flashrib.model.network.Network.with_noise`.

    Raises:
        UsageError: a value that is not possible.
    """

    targets: tuple[str, ...] = TARGETS
    precision: str | None = None
    size: Side | None = None
    noise: str | int = "input"

    def __post_init__(self) -> None:
        if self.targets != (CURRENT,):
            for target in self.targets:
                if not re.fullmatch(r"sm[0-9]{2,3}", target) or int(target[2:]) < 80:
                    raise UsageError(
                        f"--target {target}: not a compute capability from 8.0 on, such as {', '.join(TARGETS)}, nor current alone"
                    )
        if self.precision not in (None, *PRECISIONS):
            raise UsageError(f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}")
