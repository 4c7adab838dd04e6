"""Forms of the layers for CUDA GPUs: `interpreted_layers.py` in a process of its own, since Triton must be told first."""

import pytest

from tests.model.interpreter import run_interpreted


@pytest.mark.slow
def test_interpreted() -> None:
    run_interpreted("tests/model/interpreted_layers.py")
