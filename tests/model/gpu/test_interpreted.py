"""The kernels of the GPU network compute what their definitions say, on the CPU: `interpreted.py` in a process of its own.

Triton decides when it is imported whether it interprets kernels, and other tests of the same process compile them.
"""

import pytest

from tests.model.interpreter import run_interpreted


@pytest.mark.slow
def test_interpreted() -> None:
    pytest.importorskip("triton", reason="the package triton, which PyTorch brings on Linux, is not installed")
    run_interpreted("tests/model/gpu/interpreted.py")
