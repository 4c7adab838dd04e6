"""The calls into the CUDA driver on a GPU: what `test_cuda` checks on a stand-in, and what it cannot know."""

import pytest

from flashrib.runtime.nvidia.cuda import Device, find_gpu
from tests.runtime.nvidia.cuda_checks import check_copies, check_full_memory, check_recording, check_refused_recording

pytestmark = pytest.mark.gpu


def test_find_gpu() -> None:
    gpu = find_gpu()
    assert gpu.name.isprintable()
    assert gpu.name
    assert (5, 0) <= gpu.capability < (20, 0)


def test_copies_there_and_back() -> None:
    check_copies(Device())


def test_full_memory_leaves_a_buffer_that_works() -> None:
    check_full_memory(Device())


def test_recorded_work_runs_when_it_is_launched() -> None:
    check_recording(Device())


def test_work_that_cannot_be_recorded() -> None:
    check_refused_recording(Device())


def test_two_devices_share_the_context() -> None:
    """As a session does beside PyTorch or another session: closing one leaves the other alone."""
    first, second = Device(), Device()
    first.close()
    check_copies(second)
