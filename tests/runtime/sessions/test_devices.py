"""Names of devices."""

import pytest
import torch

from flashrib.runtime.errors import UsageError
from flashrib.runtime.sessions.devices import choose_devices


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("text", "count", "devices"),
    [
        ("auto", 0, ("cpu",)),
        ("auto", 2, ("cuda:0",)),
        ("cpu", 2, ("cpu",)),
        ("cuda", 1, ("cuda:0",)),
        ("cuda:1", 2, ("cuda:1",)),
        ("cuda:2,cuda:0", 3, ("cuda:2", "cuda:0")),
    ],
)
def test_devices(text: str, count: int, devices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, count)
    assert choose_devices(text) == devices


@pytest.mark.parametrize(
    ("text", "count", "message"),
    [
        ("cuda", 0, "--device cuda: PyTorch sees no CUDA GPU here; use --device cpu"),
        ("cuda:0,cuda:1", 0, "sees no CUDA GPU here"),
        ("cuda:1", 1, "--device cuda:1: there is no cuda:1; PyTorch sees cuda:0 alone here"),
        ("cuda:0,cuda:4", 4, "there is no cuda:4; PyTorch sees cuda:0 to cuda:3 here"),
        ("cuda:0,cuda:0", 1, "device 'cuda:0,cuda:0' names a GPU twice"),
        ("tpu", 1, "device 'tpu' is not one of auto, cpu, cuda"),
        ("cuda,cpu", 1, "device 'cuda,cpu' is not one of"),
        ("cuda:-1", 1, "device 'cuda:-1' is not one of"),
        ("", 1, "device '' is not one of"),
    ],
)
def test_what_is_refused(text: str, count: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, count)
    with pytest.raises(UsageError, match=message):
        choose_devices(text)
