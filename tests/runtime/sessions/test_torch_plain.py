"""The PyTorch session, on small checkpoints."""

import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flashrib.model.config import NetworkConfig
from flashrib.runtime.errors import (
    CheckpointError,
    MissingPackageError,
    OutOfMemoryError,
    SessionError,
    UsageError,
)
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.torch_plain import TorchSession, require_torch
from tests.model.networks import SMALL, SMALL_ESC
from tests.runtime.models import write_checkpoint


def pixels(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(3).random(shape, np.float32)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def test_session_follows_the_protocol(checkpoint: Path) -> None:
    session = TorchSession(checkpoint, device="cpu")
    assert isinstance(session, Session)
    info = session.info
    assert (info.scale, info.alignment, info.minimum, info.channels) == (2, 24, 5, 3)
    assert (info.precision, info.fixed_size, info.whole_picture) == ("fp32", None, False)


@pytest.mark.parametrize("config", [SMALL, SMALL_ESC], ids=["sst", "esc-rib"])
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (2, 3, 24, 31)])
def test_run_is_the_official_pipeline(config: NetworkConfig, shape: tuple[int, ...], tmp_path: Path) -> None:
    network = write_checkpoint(tmp_path / "small.safetensors", config)
    session = TorchSession(tmp_path / "small.safetensors", device="cpu")
    batch = pixels(*shape)
    result = session.run(batch)
    with torch.inference_mode():
        wanted = network.double().upscale(torch.from_numpy(batch).double()).numpy()
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert session.info.whole_picture is config.whole_picture
    np.testing.assert_allclose(result, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_a_closed_session_says_so(checkpoint: Path) -> None:
    session = TorchSession(checkpoint, device="cpu")
    session.close()
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.run(pixels(1, 3, 8, 8))


def test_threads(checkpoint: Path) -> None:
    before = torch.get_num_threads()
    try:
        TorchSession(checkpoint, device="cpu", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(UsageError, match="threads is 0, but"):
        TorchSession(checkpoint, threads=0)


@pytest.mark.parametrize("scale", [None, 2])
def test_the_scale_of_the_checkpoint(checkpoint: Path, scale: int | None) -> None:
    assert TorchSession(checkpoint, scale=scale, device="cpu").info.scale == 2


def test_another_scale_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"small\.safetensors: trained for x2, so it cannot upscale x3"):
        TorchSession(checkpoint, scale=3, device="cpu")


def test_several_gpus_are_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="device 'cuda:0,cuda:1': this session runs on one device"):
        TorchSession(checkpoint, device="cuda:0,cuda:1")


@pytest.mark.parametrize(
    ("raised", "wanted", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTry this"),
            OutOfMemoryError,
            "1x3x8x8 on 'cpu', for lack of memory: CUDA",
        ),
        (
            RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory"),
            OutOfMemoryError,
            "for lack of memory",
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), OutOfMemoryError, "for lack of memory"),
        (MemoryError(), OutOfMemoryError, "for lack of memory: MemoryError"),
        (
            RuntimeError("cuDNN error\nframe #0"),
            SessionError,
            "PyTorch failed on a batch of 1x3x8x8 on 'cpu': cuDNN error$",
        ),
    ],
    ids=["cuda", "linux", "windows", "python", "other"],
)
def test_errors_of_pytorch(
    raised: Exception, wanted: type[SessionError], message: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = TorchSession(checkpoint, device="cpu")

    def fail(_: torch.Tensor) -> torch.Tensor:
        raise raised

    with monkeypatch.context() as patch:
        patch.setattr(session, "_network", fail)
        with pytest.raises(SessionError, match=message) as caught:
            session.run(pixels(1, 3, 8, 8))
    assert type(caught.value) is wanted
    # The session is still good for a batch that fits.
    assert session.run(pixels(1, 3, 8, 8)).shape == (1, 3, 16, 16)


def test_a_real_failed_allocation_is_out_of_memory(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = TorchSession(checkpoint, device="cpu")
    monkeypatch.setattr(session, "_network", lambda batch: torch.empty(2**47))
    with pytest.raises(OutOfMemoryError, match="for lack of memory"):
        session.run(pixels(1, 3, 8, 8))


def test_what_a_run_held_that_lacked_memory_is_free(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the error, whose traceback knows all frames, is still there: smaller tiles are tried at once."""
    held: list[weakref.ref[torch.Tensor]] = []

    def fail(batch: torch.Tensor) -> torch.Tensor:
        larger = batch + 1
        held.append(weakref.ref(larger))
        raise torch.OutOfMemoryError("CUDA out of memory")

    session = TorchSession(checkpoint, device="cpu")
    monkeypatch.setattr(session, "_network", fail)
    with pytest.raises(OutOfMemoryError, match="for lack of memory") as caught:
        session.run(pixels(1, 3, 8, 8))
    assert held[0]() is None
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


@pytest.mark.parametrize("package", ["torch", "safetensors"])
def test_a_missing_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf"training needs the package '{package}'.*flashrib\[train\]"):
        require_torch("training", extra="train")


@pytest.mark.parametrize(
    "error", [ImportError("libcudart.so.12: not found"), ModuleNotFoundError("x", name="sympy"), OSError("x")]
)
def test_a_package_that_does_not_load(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr("flashrib.runtime.sessions.torch_plain.importlib.import_module", fail)
    with pytest.raises(SessionError, match=f"'torch', which does not load: {error}"):
        require_torch("training")


@pytest.mark.gpu
def test_float32_on_the_gpu_is_float32(checkpoint: Path) -> None:
    batch = pixels(1, 3, 48, 48)
    wanted = TorchSession(checkpoint, device="cpu").run(batch)
    before = torch.backends.cudnn.allow_tf32
    result = TorchSession(checkpoint, device="cuda").run(batch)
    assert torch.backends.cudnn.allow_tf32 == before
    np.testing.assert_allclose(result, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
