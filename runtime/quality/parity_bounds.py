"""How far an artifact may be from the reference, by the precision that it computes in; the reasons stand in docs/verify.md."""

import dataclasses

from flashrib.runtime.errors import ModelError

# The RMS of a reference output counts as at least this much: a black picture's output is nearly nothing, and no error is small
# beside nothing. With it, the bound of fp16 on black is 5e-4, an eighth of a step of 8 bits.
LEAST_RMS = 0.1


@dataclasses.dataclass(frozen=True)
class Bound:
    """Largest errors allowed; None: not bounded.

    Attributes:
        max_abs: of any single value of an output, 1 being white.
        rms_ratio: RMS of the error over RMS of the reference's output (at least `LEAST_RMS`), per input.
        psnr_drop: dB of PSNR to the originals that may be lost against the reference, on average over the pictures.
        layer: as `rms_ratio`, for the output of a layer inside the network, where values have any size (`--bisect`).
    """

    max_abs: float | None
    rms_ratio: float | None
    psnr_drop: float
    layer: float

    def __str__(self) -> str:
        """The bounds that are stated, in words."""
        limits = [("max abs", self.max_abs), ("RMS ratio", self.rms_ratio)]
        words = [f"{name} at most {limit:.0e}" for name, limit in limits if limit is not None]
        return ", ".join([*words, f"loss of PSNR to originals at most {self.psnr_drop} dB"])


BOUNDS = {
    "fp32": Bound(1e-4, None, 0.01, 2e-5),
    "fp16": Bound(None, 5e-3, 0.02, 1e-2),
    "bf16": Bound(None, 2e-2, 0.05, 6e-2),
    "int8": Bound(None, 5e-2, 0.3, 3e-1),
    "fp8": Bound(None, 5e-2, 0.3, 3e-1),
}


def bound_of(precision: str, reference: str = "fp32") -> Bound:
    """Return the bound for an artifact of `precision` beside a reference of another: that of the coarser one of the two.

    Raises:
        ModelError: no such precision.
    """
    order = list(BOUNDS)
    for name in (precision, reference):
        if name not in order:
            raise ModelError(f"the precision {name!r} is not one of {', '.join(order)}: export the model again")
    return BOUNDS[max(precision, reference, key=order.index)]
