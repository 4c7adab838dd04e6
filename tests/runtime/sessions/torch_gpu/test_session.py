"""The fast session on a real GPU, and what it says without one."""

import gc
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flashrib.model.config import NetworkConfig
from flashrib.runtime.cli import main
from flashrib.runtime.errors import OutOfMemoryError, SessionError, UsageError
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.table import open_session
from flashrib.runtime.sessions.torch_gpu import worker as gpu_worker
from flashrib.runtime.sessions.torch_gpu.session import GpuSession, open_gpu_session
from flashrib.runtime.sessions.torch_plain import TorchSession
from flashrib.runtime.tiling.upscale import upscale_array
from tests.model.networks import SMALL, SMALL_ESC
from tests.runtime.models import write_checkpoint
from tests.runtime.tiling.test_upscale import noise

# Largest difference to float32 in units of the largest value, for networks of a few layers with random weights.
TOLERANCES = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 1e-1}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def worst(result: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> float:
    return float(np.abs(result.astype(np.float64) - wanted).max() / np.abs(wanted).max())


@pytest.mark.gpu
@pytest.mark.parametrize("config", [SMALL, SMALL_ESC], ids=["sst", "esc-rib"])
@pytest.mark.parametrize("precision", list(TOLERANCES))
def test_every_precision_is_near_float32(config: NetworkConfig, precision: str, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "small.safetensors", config)
    session = open_gpu_session(tmp_path / "small.safetensors", ["cuda:0"], precision)
    assert isinstance(session, Session)
    plain = TorchSession(tmp_path / "small.safetensors", device="cpu")
    for shape in ((1, 3, 5, 7), (2, 3, 24, 31), (1, 3, 96, 100)):
        batch = np.random.default_rng().random(shape, np.float32)
        result = session.run(batch)
        assert result.dtype == np.float32
        assert worst(result, plain.run(batch)) < TOLERANCES[precision]
    session.close()
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.run(batch)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("shape", "dtype"), [((90, 70, 3), "uint8"), ((90, 70), "uint16"), ((50, 90, 3), "float32"), ((4, 3, 3), "uint8")]
)
def test_tiles_equal_those_of_the_plain_session(
    shape: tuple[int, ...], dtype: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_gpu_session(checkpoint, ["cuda:0"], "fp32")
    plain = TorchSession(checkpoint, device="cpu")
    for _ in range(3):  # plain, recorded, replayed
        pixels = noise(*shape, dtype=dtype)[::-1]
        result = upscale_array(session, pixels, tile=24, halo=0).astype(np.float64)
        wanted = upscale_array(plain, pixels, tile=24, halo=0).astype(np.float64)
        top = 1 if dtype == "float32" else np.iinfo(dtype).max
        assert np.abs(result - wanted).max() / top < (1e-4 if dtype != "uint8" else 1.01 / 255)
        assert np.mean(result != wanted) < 0.01 or dtype != "uint8"


@pytest.mark.gpu
def test_shapes_are_recorded_the_second_time_and_the_latest_kept(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_worker, "GRAPHS", 2)
    session = open_gpu_session(checkpoint, ["cuda:0"], "fp16")
    graphs = session.workers[0]._graphs
    random = np.random.default_rng()
    first: dict[int, np.ndarray[Any, Any]] = {}
    for turn, side in enumerate((30, 30, 30, 40, 40, 50, 30, 30)):
        pixels = random.integers(0, 255, (side, side, 3), np.uint8)
        result = upscale_array(session, pixels)
        monkeypatch.setattr(session.workers[0], "_records", False)
        np.testing.assert_array_equal(result, upscale_array(session, pixels))
        monkeypatch.setattr(session.workers[0], "_records", True)
        first[turn] = result
    assert [key[0][0] for key in graphs] == [50, 30]
    assert [graph is not None for graph in graphs.values()] == [False, True]
    monkeypatch.setattr(gpu_worker, "GRAPH_PIXELS", 60 * 60 - 1)
    for _ in range(2):
        upscale_array(session, noise(60, 60, 3))
    assert [key[0][0] for key in graphs] == [50, 30]


@pytest.mark.gpu
def test_a_network_that_cannot_be_recorded_still_runs(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = open_gpu_session(checkpoint, ["cuda:0"], "fp32")
    worker: Any = session.workers[0]
    network = worker._network

    def waiting(batch: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = network(batch)
        float(result[0, 0, 0, 0])  # waits for the GPU, which a graph cannot
        return result

    pixels = noise(30, 30, 3)
    wanted = upscale_array(session, pixels)
    worker._network = waiting
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(upscale_array(session, pixels), wanted)
    assert [record.name for record in caplog.records] == ["flashrib"]
    assert "CUDA graphs do not work with this network on cuda:0" in caplog.text
    # The recording that failed does not keep PyTorch from giving memory back.
    freed = torch.empty(256 << 20, dtype=torch.uint8, device="cuda:0")
    reserved = torch.cuda.memory_reserved(0)
    del freed
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved(0) <= reserved - (256 << 20)


@pytest.mark.gpu
def test_too_large_tiles_become_smaller(checkpoint: Path) -> None:
    session = open_gpu_session(checkpoint, ["cuda:0"], "fp16")
    side = 1200  # PyTorch takes memory in pieces of 20 MB, which are a small part of what this needs
    pixels = noise(side, side, 3)
    for _ in range(2):  # the first run leaves behind what libraries keep
        before = torch.cuda.memory_allocated(0)
        torch.cuda.reset_peak_memory_stats(0)
        wanted = upscale_array(session, pixels, tile=side)
        free = float(torch.cuda.max_memory_allocated(0) - before)
    gc.collect()  # sessions of other tests
    session.workers[0].abandon()
    used, total = torch.cuda.memory_reserved(0), torch.cuda.get_device_properties(0).total_memory
    seen: list[int] = []
    try:
        while seen.count(0) < 2:  # until tiles were tried again; where not even the smallest fit, this raises
            free *= 0.7
            assert free > 1 << 20
            torch.cuda.set_per_process_memory_fraction((used + free) / total)
            seen.clear()
            upscaled = upscale_array(session, pixels, tile=side, halo=24, progress=lambda done, _: seen.append(done))
        with pytest.raises(OutOfMemoryError, match=r"PyTorch failed on a batch of 1x3x2400x2400 on 'cuda:0', for lack"):
            session.run(np.zeros((1, 3, 2400, 2400), np.float32))
        assert session.run(np.zeros((1, 3, 24, 24), np.float32)).shape == (1, 3, 48, 48)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert seen.count(0) <= 4  # what a failed try held is free for the next one
    # Other tiles have seams, and nothing else.
    assert np.mean(np.abs(upscaled.astype(int) - wanted)) < 1


@pytest.mark.gpu
def test_an_overflow_names_the_tile_and_the_session_goes_on(checkpoint: Path) -> None:
    session = open_gpu_session(checkpoint, ["cuda:0"], "fp16")
    pixels = np.random.default_rng().random((60, 60, 3), np.float32)
    broken = pixels.copy()
    broken[50, 10] = 1e30
    with pytest.raises(SessionError, match=r"NaN or infinity for the tile of rows 48\.\.60 and columns 0\.\.24"):
        upscale_array(session, broken, tile=24, halo=0)
    assert np.isfinite(upscale_array(session, pixels, tile=24, halo=0)).all()


@pytest.mark.gpu
def test_a_batch_is_used_while_another_thread_uses_the_gpu(checkpoint: Path) -> None:
    session = open_gpu_session(checkpoint, ["cuda:0"], "fp16")
    pixels = noise(200, 200, 3)
    wanted = upscale_array(session, pixels, tile=24, halo=24)
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            torch.ones(1 << 20, device="cuda").sum().item()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(5):
            np.testing.assert_array_equal(upscale_array(session, pixels, tile=24, halo=24), wanted)
    finally:
        stop.set()
        thread.join()


@pytest.mark.gpu
def test_two_gpus_give_what_one_gives(checkpoint: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU here, not two")
    pixels = noise(300, 300, 3)
    one = open_gpu_session(checkpoint, ["cuda:0"], "fp16")
    two = open_gpu_session(checkpoint, ["cuda:0", "cuda:1"], "fp16")
    for _ in range(3):
        np.testing.assert_array_equal(
            upscale_array(two, pixels, tile=24, halo=24), upscale_array(one, pixels, tile=24, halo=24)
        )


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("precision", "kind"), [(None, TorchSession), ("auto", GpuSession), ("fp32", GpuSession), ("bf16", GpuSession)]
)
def test_which_session_a_checkpoint_gets(precision: str | None, kind: type, checkpoint: Path) -> None:
    session = open_session(checkpoint, precision=precision)
    assert type(session) is kind
    assert session.info.precision == {"auto": "fp16", None: "fp32"}.get(precision, precision)


def test_the_cpu_has_one_precision(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for precision in (None, "auto", "fp32"):
        assert isinstance(open_session(checkpoint, device="cpu", precision=precision), TorchSession)
    for precision in ("fp16", "bf16"):
        with pytest.raises(UsageError, match=f"--precision {precision}: on the CPU PyTorch computes in fp32"):
            open_session(checkpoint, device="cpu", precision=precision)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:0,cuda:1"):
        with pytest.raises(UsageError, match=f"--device {device}: PyTorch sees no CUDA GPU here; use --device cpu"):
            open_session(checkpoint, device=device, precision="auto")


def test_no_such_precision(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="precision 'int8' is not one of fp32, fp16, bf16"):
        open_gpu_session(checkpoint, ["cuda:0"], "int8")


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda:99", "cuda:0,cuda:99"])
def test_a_gpu_that_is_not_there(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "in.png", Picture(noise(8, 9, 3)))
    arguments = ["upscale", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "--session", "torch"]
    assert main([*arguments, "--device", device]) == 2
    assert f"--device {device}: there is no cuda:99; PyTorch sees" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()


@pytest.mark.gpu
def test_the_command(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "in.png", Picture(noise(96, 96, 3)))
    command = ["upscale", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "--model", str(checkpoint)]
    results = {}
    for device, precision in (("cuda", "auto"), ("cuda:0", "fp32"), ("cpu", "auto")):
        assert main([*command, "--overwrite", "--device", device, "--precision", precision]) == 0
        results[device, precision] = read_picture(tmp_path / "out.png").pixels.astype(int)
    exact = results["cpu", "auto"]
    assert exact.shape == (192, 192, 3)
    assert np.abs(results["cuda:0", "fp32"] - exact).max() <= 1
    assert np.abs(results["cuda", "auto"] - exact).mean() < 1
    assert capsys.readouterr().err == ""
