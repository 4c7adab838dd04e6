"""NIQE is the official one on public pictures."""

import json

import numpy as np
import pytest

from flashrib.runtime.errors import UsageError
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.quality.niqe import niqe
from tests.places import SHARED

VECTOR = SHARED / "golden" / "sst_real" / "niqe.json"
KNOWN = json.loads(VECTOR.read_text())["values"] if VECTOR.exists() else {}


@pytest.mark.shared
@pytest.mark.parametrize("name", KNOWN)
def test_official_values(name: str) -> None:
    found = niqe(read_picture(SHARED / "data" / name).pixels)
    assert abs(found - KNOWN[name]) <= 2e-4 * KNOWN[name]  # the official code computes in float32


def test_noise_looks_worse() -> None:
    """A smooth picture with a little texture against the same under strong noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:192, :288] / 40
    picture = 128 + 60 * np.sin(x + 2 * np.cos(y)) * np.cos(3 * y) + random.normal(0, 4, x.shape)
    clean = np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
    noisy = np.clip(clean + random.normal(0, 60, clean.shape), 0, 255).astype(np.uint8)
    assert 0 < niqe(clean) < niqe(noisy)


def test_too_small() -> None:
    with pytest.raises(UsageError, match="at least 96x96 pixels, got 95x200"):
        niqe(np.zeros((95, 200, 3), np.uint8))
