"""The fused kernel computes what its definition says, on the CPU: each group of `interpreted_kernel.py` in a process of its own.

Triton decides when it is imported whether it interprets kernels, and other tests of the same process compile them.
"""

import pytest

from tests.model.interpreter import run_interpreted

GROUPS = ["(geometry or gate) and not gradient", "not geometry and not gate and not gradient", "gradient"]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_interpreted(group: str) -> None:
    run_interpreted("tests/model/attention/window/interpreted_kernel.py", "-k", group)
