"""What the whole suite shares: skipping with a reason what this machine cannot run."""

import pytest

from tests.official import SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    no_gpu = pytest.mark.skip(reason="no CUDA GPU here")
    no_shared = pytest.mark.skip(reason=f"the folder of test pictures and official vectors is not at hand: {SHARED}")
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(no_gpu)
        if item.get_closest_marker("shared") and not SHARED.is_dir():
            item.add_marker(no_shared)
