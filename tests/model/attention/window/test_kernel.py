"""The fused kernel computes what its definition says, on the CPU: each group of `interpreted_kernel.py` in a process of its own.

Triton decides when it is imported whether it interprets kernels, and other tests of the same process compile them.
"""

import os
import subprocess
import sys

import pytest

from tests.places import ROOT

GROUPS = ["(geometry or gate) and not gradient", "not geometry and not gate and not gradient", "gradient"]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_interpreted(group: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            group,
            "tests/model/attention/window/interpreted_kernel.py",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
