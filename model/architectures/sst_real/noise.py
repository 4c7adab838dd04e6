"""The noise that a network may have inside, instead of an input of its own."""

import torch
from torch import Tensor

from flashrib.model.architectures.sst_real.config import SCALE, SSTRealConfig
from flashrib.runtime.noise import NoiseMap


def noise_inside(config: SSTRealConfig) -> Tensor | None:
    """The noise that a network has inside, (1, 3, 4A, 4A) of the first A x A pixels of its seed's map, A being `alignment`; None: none.

    It repeats: tiles begin at multiples of A, so each has the noise that the whole picture has there.
    """
    if not isinstance(config.noise_source, int) or config.sigma == 0:
        return None
    square = slice(0, config.alignment)
    return torch.from_numpy(NoiseMap(config.noise_source, SCALE).part(square, square))
