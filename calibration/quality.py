"""What a model's output on held-out tiles is worth: PSNR to the original on luma, and the error against the unquantized model."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from flashrib.calibration.graph import run, runner
from flashrib.calibration.statistics import Doubles, feed, input_type
from flashrib.calibration.tiles import Tile
from flashrib.runtime.errors import SessionError
from flashrib.runtime.quality.metrics import LUMA_OFFSET, LUMA_WEIGHTS, psnr, rgb_to_y


@dataclasses.dataclass(frozen=True)
class Quality:
    """Means over held-out tiles.

    Attributes:
        psnr: to the originals in dB.
        drop: of that against the unquantized model, measured; negative where the errors happen to lead towards the originals.
        expected: the drop in dB of errors that have nothing to do with the originals: 10 log10(1 + error / error of the model).
        error: mean square error against the unquantized model's output (luma, 0..255).
    """

    psnr: float
    drop: float
    expected: float
    error: float

    @property
    def loss(self) -> float:
        """What a budget is compared with: the larger of the measured and the expected drop, so that no luck on a few tiles counts."""
        return max(self.drop, self.expected)


class Judge:
    """Holds the held-out tiles, their originals, and what the unquantized model makes of them.

    Luma is not rounded to 8 bits here, unlike in `flashrib evaluate`: the drops of single layers are below what rounding hides.
    """

    def __init__(self, model: ModelProto, tiles: Sequence[Tile], scale: int, threads: int | None) -> None:
        self.tiles, self.scale, self.threads = tuple(tiles), scale, threads
        self.feeds = [feed(tile).astype(input_type(model)) for tile in tiles]
        self.originals = [rgb_to_y(tile.high) for tile in tiles]
        session = runner(model, threads)
        self.outputs = [luma_of(run(session, {"input": x})["output"]) for x in self.feeds]
        self.base = [self._psnr(output, index) for index, output in enumerate(self.outputs)]

    @property
    def psnr(self) -> float:
        """Mean PSNR of the unquantized model."""
        return math.fsum(self.base) / len(self.base)

    def judge_model(self, model: ModelProto) -> Quality:
        """Run a model on all tiles."""
        session = runner(model, self.threads)
        return self.judge({i: run(session, {"input": x})["output"] for i, x in enumerate(self.feeds)})

    def judge(self, outputs: Mapping[int, NDArray[Any]]) -> Quality:
        """Compare outputs (1, 3, rH, rW) for the tiles of these indices.

        Raises:
            SessionError: an output is not finite.
        """
        lumas = {index: luma_of(output) for index, output in outputs.items()}
        seen = [self._psnr(y, index) for index, y in lumas.items()]
        base = [self.base[index] for index in lumas]
        errors = [float(np.mean(np.square(y - self.outputs[index]))) for index, y in lumas.items()]
        expected = [
            10 * math.log10(1 + error * 10 ** (psnr_of_model / 10) / 255**2)
            for error, psnr_of_model in zip(errors, base, strict=True)
        ]
        count = len(lumas)
        mean = math.fsum(seen) / count
        drop = math.fsum(base) / count - mean
        return Quality(mean, drop, math.fsum(expected) / count, math.fsum(errors) / count)

    def _psnr(self, luma: Doubles, index: int) -> float:
        return min(psnr(luma, self.originals[index], border=self.scale, peak=255.0), 100.0)


def luma_of(output: NDArray[Any]) -> Doubles:
    """Luma 16..235 (H, W) of an output (1, 3, H, W), bounded to 0..1 before.

    Raises:
        SessionError: it is not finite.
    """
    if not np.isfinite(output).all():
        raise SessionError(
            "the output of the model on a held-out tile is not finite: it overflows; calibrate an fp32 export"
        )
    bounded = np.clip(output[0].astype(np.float64), 0.0, 1.0) * 255.0
    result: Doubles = np.tensordot(LUMA_WEIGHTS, bounded, (0, 0)) + LUMA_OFFSET
    return result
