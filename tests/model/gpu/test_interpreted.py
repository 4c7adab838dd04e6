"""The kernels of the GPU network compute what their definitions say, on the CPU: `interpreted.py` in a process of its own.

Triton decides when it is imported whether it interprets kernels, and other tests of the same process compile them.
"""

import os
import subprocess
import sys

import pytest

from tests.places import ROOT


@pytest.mark.slow
def test_interpreted() -> None:
    pytest.importorskip("triton", reason="the package triton, which PyTorch brings on Linux, is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/model/gpu/interpreted.py"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
