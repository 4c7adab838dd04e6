"""Conversion on the device: the same as for sessions that take batches."""

from typing import Any

import numpy as np
import pytest
import torch

from flashrib.runtime.sessions.base import OneByOne
from flashrib.runtime.sessions.torch_gpu.pixels import to_batch, to_pixels
from tests.runtime.sessions.fakes import FakeSession
from tests.runtime.tiling.test_upscale import noise

BITS = {"uint8": torch.uint8, "uint16": torch.int16, "float32": torch.float32}


def tensor(pixels: np.ndarray[Any, Any]) -> torch.Tensor:
    return torch.from_numpy(pixels.view(np.int16) if pixels.dtype == np.uint16 else pixels)


@pytest.mark.parametrize("shape", [(20, 30, 3), (20, 30)], ids=["colour", "gray"])
@pytest.mark.parametrize("dtype", list(BITS))
def test_in(shape: tuple[int, ...], dtype: str) -> None:
    class Recording(FakeSession):
        def change(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            self.seen = batch
            return batch

    pixels, session = noise(*shape, dtype=dtype), Recording()
    pixels[0, 0], pixels[1, 1] = 0, np.iinfo(dtype).max if dtype != "float32" else 1.5
    OneByOne(session).submit(pixels, slice(None), slice(None), "")
    batch = to_batch(tensor(pixels), torch.float32)
    assert batch.is_contiguous()
    np.testing.assert_allclose(batch.numpy(), session.seen, rtol=2e-7)
    assert to_batch(tensor(pixels), torch.float16).dtype == torch.float16


@pytest.mark.parametrize("gray", [False, True], ids=["colour", "gray"])
@pytest.mark.parametrize("dtype", list(BITS))
def test_out(gray: bool, dtype: str) -> None:
    class Given(FakeSession):
        def run(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            return values

    # Below 0, above 1, and halves, which are rounded to even.
    ramp = np.linspace(-0.25, 1.25, 3 * 40 * 60 - 2, dtype=np.float32)
    values = np.concatenate([ramp, np.float32([2.5, 3.5]) / np.float32(255)]).reshape(1, 3, 40, 60)
    wanted = np.empty((40, 60) if gray else (40, 60, 3), dtype)
    one = OneByOne(Given())
    one.submit(noise(20, 30, 3), slice(None), slice(None), "")
    one.collect(wanted)
    result = to_pixels(torch.from_numpy(values), BITS[dtype], gray=gray).numpy().view(dtype)
    if gray:  # sums of three in another order
        assert np.abs(result.astype(np.float64) - wanted).max() <= (1e-6 if dtype == "float32" else 1)
        assert np.mean(result != wanted) < 0.5 if dtype == "float32" else np.mean(result != wanted) < 0.01
    else:
        np.testing.assert_array_equal(result, wanted)
