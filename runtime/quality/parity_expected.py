"""What the reference makes of an input, with the noise that an artifact has, where models take some."""

from pathlib import Path

import numpy as np

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.noise import NoiseMap, padded, repeated_noise
from flashrib.runtime.quality.parity_inputs import Case
from flashrib.runtime.sessions.base import no_noise
from flashrib.runtime.sessions.protocol import Batch, Session

GIVEN, NONE = "given", "none"
Source = str | int


def noise_source(reference: ModelInfo, artifact: ModelInfo) -> Source:
    """The noise on which two models can be compared: `GIVEN` where both take any, otherwise that inside one, a seed or `NONE`.

    Raises:
        ModelError: both have some inside, and it is not the same.
    """
    sources = [
        info.noise_seed if info.noise_seed is not None else (GIVEN if info.noise else NONE)
        for info in (reference, artifact)
    ]
    fixed = sorted({source for source in sources if source != GIVEN}, key=str)
    if len(fixed) == 2:
        words = ["no noise" if source == NONE else f"the noise of seed {source}" for source in fixed]
        raise ModelError(f"one of reference and artifact has {words[0]} inside, the other {words[1]}")
    return fixed[0] if fixed else GIVEN


def noise_for(info: ModelInfo, batch: Batch, source: Source, seed: int) -> Batch | None:
    """Return the noise of a source for a model and its input; None for models that take none.

    Args:
        info: of the model.
        batch: (1, 3, H, W), the input.
        source: see `noise_source`.
        seed: of the noise that is given.
    """
    if not info.noise:
        return None
    if source == NONE:
        return no_noise(info, batch)
    height, width = batch.shape[2:]
    if isinstance(source, int):
        return repeated_noise(source, info.scale, info.alignment, height, width)
    rows, columns = (slice(0, padded(side, info.alignment)) for side in (height, width))
    return NoiseMap(seed, info.scale).part(rows, columns)


def run_with(session: Session, batch: Batch, source: Source, seed: int) -> Batch:
    """Run a session with the noise of a source; see `noise_for`."""
    noise = noise_for(session.info, batch, source, seed)
    return session.run(batch) if noise is None else session.run(batch, noise)


class Expected:
    """The outputs of the reference for one input, computed once for each noise."""

    def __init__(self, reference: Path, base: Session, case: Case, seed: int) -> None:
        self._reference, self._base, self._case, self._seed = reference, base, case, seed
        self._outputs: dict[Source, Batch] = {}

    def of(self, source: Source) -> Batch:
        """Return the output with the noise of a source.

        Raises:
            SessionError: it is not finite, so that nothing can be compared with it; or the reference failed.
        """
        if source not in self._outputs:
            output = run_with(self._base, self._case.batch, source, self._seed)
            if not np.isfinite(output).all():
                raise SessionError(
                    f"{self._reference}: NaN or infinity in the reference's output for the input {self._case.name!r}: nothing can"
                    " be compared with it"
                )
            self._outputs[source] = output
        return self._outputs[source]
