"""Corners of the pictures of Set5, for tests of quality that would take minutes on whole pictures."""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.quality.evaluate import WHOLE, find_pairs
from flashrib.runtime.quality.metrics import psnr
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.tiling.upscale import upscale_array
from tests.places import SHARED

SIDE = 64  # the alignment of the bundled models, which compute as much for one pixel

Pixels = NDArray[np.uint8]


@functools.cache
def corners() -> list[tuple[Pixels, Pixels]]:
    """The upper left corners of all five pictures in low and in high resolution, (64, 64, 3) and (128, 128, 3)."""
    found = []
    for pair in find_pairs(SHARED / "data" / "Set5" / "x2"):
        assert pair.low is not None
        low, high = read_picture(pair.low).pixels, read_picture(pair.high).pixels
        found.append(
            (np.ascontiguousarray(low[:SIDE, :SIDE]), np.ascontiguousarray(high[: 2 * SIDE, : 2 * SIDE])),
        )
    assert len(found) == 5
    return found


@functools.cache
def psnr_of_corners(model: Path) -> float:
    """Mean PSNR of a model for x2 on the corners, in dB."""
    session = OnnxRuntimeSession(model)
    figures = [psnr(upscale_array(session, low, tile=WHOLE), high, border=2) for low, high in corners()]
    return sum(figures) / len(figures)
