"""What the whole suite shares: skipping with a reason what this machine cannot run."""

import os

import pytest

from flashrib.runtime.errors import FlashribError
from flashrib.runtime.nvidia.cuda import find_gpu
from tests.places import SHARED


def pytest_configure(config: pytest.Config) -> None:
    """Give every worker of pytest-xdist CPUs of its own: threads of two workers on the same CPUs wait for each other."""
    worker = getattr(config, "workerinput", None)
    if worker is not None and hasattr(os, "sched_setaffinity"):
        cpus = sorted(os.sched_getaffinity(0))
        number, count = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
        os.sched_setaffinity(0, cpus[number::count] or cpus)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_gpu = pytest.mark.skip(reason="no CUDA GPU here")
    no_shared = pytest.mark.skip(reason=f"the folder of test pictures and official vectors is not at hand: {SHARED}")
    for item in items:
        if item.get_closest_marker("gpu") and not has_gpu():
            item.add_marker(no_gpu)
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(no_shared)


def has_gpu() -> bool:
    """Say whether PyTorch can use a GPU, or, where there is no PyTorch, whether the driver has one."""
    try:
        import torch
    except ModuleNotFoundError:
        try:
            find_gpu()
        except FlashribError:
            return False
        return True
    return torch.cuda.is_available()
