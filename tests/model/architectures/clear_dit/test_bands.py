"""CLEAR in row bands on several devices: two processes over gloo equal one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flashrib.model.architectures.clear_dit.bands import BandedClear, band_rows
from flashrib.model.fold import fold
from flashrib.runtime.errors import UsageError
from tests.model.architectures.clear_dit.cases import network, tiny
from tests.places import ROOT


@pytest.mark.parametrize("parts", [2, 3])
def test_bands_equal_one_device(parts: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.model.architectures.clear_dit.banded"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(parts), str(tmp_path / "meeting")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(parts)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output[-3000:]
        assert "equal" in output


def test_bands_of_rows() -> None:
    assert band_rows(256, 2, 8) == [(0, 128), (128, 256)]
    assert band_rows(90, 3, 8) == [(0, 32), (32, 64), (64, 90)]
    assert band_rows(12, 2, 3, 4) == [(0, 8), (8, 12)]
    assert all(last % 4 == 0 for _, last in band_rows(96, 5, 8, 4))
    with pytest.raises(UsageError, match="20 rows of tokens cannot be cut into 2 bands of 15 rows or more"):
        band_rows(20, 2, 16)


def test_full_attention_has_no_bands() -> None:
    with pytest.raises(UsageError, match="full attention"):
        BandedClear(fold(network(tiny(None))))
