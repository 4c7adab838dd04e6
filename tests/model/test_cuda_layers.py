"""Forms of the layers for CUDA GPUs: `interpreted_layers.py` in a process of its own, since Triton must be told first."""

import os
import subprocess
import sys

import pytest

from tests.places import ROOT


@pytest.mark.slow
def test_interpreted() -> None:
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/model/interpreted_layers.py"]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
