"""What a calibration can be asked for."""

import dataclasses

from flashrib.calibration.formats import MODES
from flashrib.calibration.ranges import METHODS
from flashrib.runtime.errors import UsageError

SENSITIVITY_TILES = (
    2  # of the held-out ones; the errors of layers differ by orders of magnitude, and two tell them apart
)


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """Properties of a calibration.

    Attributes:
        mode: "int8" or "fp8" (E4M3).
        method: how ranges of activations are found, one of `flashrib.calibration.ranges.METHODS`.
        budget: largest loss of PSNR on the held-out tiles in dB, > 0; see `flashrib.calibration.quality.Quality`.
        tiles: calibration tiles, >= 1.
        held_out: tiles that quality is measured on, each of another picture, >= `SENSITIVITY_TILES`.
        side: of a tile in pixels of the input; None: the model's alignment, at least 64.
        seed: of the tiles.
        threads: of ONNX Runtime; None: all cores.

    Raises:
        UsageError: a value that is not possible.
    """

    mode: str
    method: str = "minmax"
    budget: float = 0.05
    tiles: int = 16
    held_out: int = 8
    side: int | None = None
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, possible in (("mode", MODES), ("method", METHODS)):
            if getattr(self, name) not in possible:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {', '.join(possible)}")
        for name, least in (("tiles", 1), ("held_out", SENSITIVITY_TILES), ("seed", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}, but it must be at least {least}")
        if not 0 < self.budget < float("inf"):
            raise UsageError(f"the budget is {self.budget} dB, but it must be above 0")
