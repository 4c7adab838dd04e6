"""What a GPU worker does with tiles, graphs and errors, on a stand-in for CUDA; on a real GPU: test_gpu_session.py."""

import logging
from typing import Any

import numpy as np
import pytest
import torch

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.errors import OutOfMemoryError, SessionError
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.torch_gpu import worker as gpu_worker
from flashrib.runtime.sessions.torch_gpu.session import MEMORY_SHARE, MOST_PIXELS, GpuSession
from flashrib.runtime.sessions.torch_gpu.worker import GpuWorker
from flashrib.runtime.tiling.upscale import upscale_array
from tests.runtime.sessions.fake_cuda import FakeCuda
from tests.runtime.tiling.test_upscale import noise


class Network:
    """Repeats pixels; fails on more than `limit` pixels; `calls` counts the runs of its Python code."""

    def __init__(self) -> None:
        self.limit = 10**9
        self.calls = 0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if batch.shape[2] * batch.shape[3] > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")
        return batch.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


@pytest.fixture
def network(cuda: FakeCuda) -> Network:
    return Network()


def session_of(*networks: Network) -> GpuSession:
    workers = [GpuWorker(network, "cpu", torch.float32, 2) for network in networks]
    return GpuSession(workers, ModelInfo(scale=2, alignment=8, minimum=5))


def twice(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def test_the_session_follows_the_protocols(network: Network) -> None:
    session = session_of(network)
    assert isinstance(session, Session)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("shape", "dtype"), [((90, 70, 3), "uint8"), ((90, 70), "uint16"), ((50, 90, 3), "float32"), ((4, 3, 3), "uint8")]
)
def test_pixels_come_back_as_they_are(count: int, shape: tuple[int, ...], dtype: str, network: Network) -> None:
    session = session_of(*([network] * count))
    for _ in range(3):  # plain, recorded, replayed
        pixels = np.random.default_rng().permutation(noise(*shape, dtype=dtype))[::-1]
        result = upscale_array(session, pixels, tile=16, halo=8)
        assert result.dtype == pixels.dtype
        np.testing.assert_array_equal(result, twice(pixels))


def test_a_shape_is_recorded_the_second_time(network: Network, cuda: FakeCuda) -> None:
    session = session_of(network)
    for turn in range(4):
        pixels = np.random.default_rng(turn).integers(0, 256, (30, 30, 3), np.uint8)
        np.testing.assert_array_equal(upscale_array(session, pixels, tile=32), twice(pixels))
    assert network.calls == 2
    assert [graph.replays for graph in cuda.graphs] == [3]
    upscale_array(session, noise(30, 30), tile=32)
    upscale_array(session, noise(30, 30, 3, dtype="uint16"), tile=32)
    assert network.calls == 4  # gray, and another dtype: other shapes


def test_the_latest_shapes_are_kept(network: Network, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_worker, "GRAPHS", 2)
    session = session_of(network)
    for side in (30, 30, 40, 40, 30, 50, 50, 30, 40):
        upscale_array(session, noise(side, side, 3), tile=64)
    assert network.calls == 2 + 2 + 2 + 1
    assert len(cuda.graphs) == 3


def test_large_tiles_are_not_recorded(network: Network, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_worker, "GRAPH_PIXELS", 30 * 30)
    session = session_of(network)
    for side in (30, 31):
        for _ in range(3):
            upscale_array(session, noise(side, side, 3), tile=64)
    assert network.calls == 2 + 3
    assert len(cuda.graphs) == 1


@pytest.mark.parametrize("ends_well", [True, False])
@pytest.mark.parametrize("error", [RuntimeError, torch.OutOfMemoryError])
def test_a_network_that_cannot_be_recorded_still_runs(
    error: type[Exception], ends_well: bool, network: Network, cuda: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    session = session_of(network)
    cuda.ends_well = ends_well
    cuda.refused = error("operation not permitted when stream is capturing\nframe #0")
    pixels = noise(30, 30, 3)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            np.testing.assert_array_equal(upscale_array(session, pixels, tile=32), twice(pixels))
    assert [record.getMessage() for record in caplog.records] == [
        "flashrib: warning: CUDA graphs do not work with this network on cpu (operation not permitted when stream is capturing):"
        " kernels are launched one by one, which slows small tiles down"
    ]
    assert network.calls == 3
    assert not cuda.recording
    assert len(cuda.released) == (not ends_well)


@pytest.mark.parametrize("count", [1, 2])
def test_too_large_tiles_become_smaller(count: int, network: Network) -> None:
    session = session_of(*([network] * count))
    network.limit = 24 * 24
    pixels = noise(100, 100, 3)
    np.testing.assert_array_equal(upscale_array(session, pixels, tile=64, halo=8), twice(pixels))
    network.limit = 1
    with pytest.raises(
        OutOfMemoryError, match=r"a tile of 24x24 pixels does not fit into memory, and these are the smallest"
    ):
        upscale_array(session, pixels, tile=64, halo=8)
    batch = np.zeros((1, 3, 9, 8), np.float32)
    with pytest.raises(
        OutOfMemoryError, match="failed on a batch of 1x3x9x8 on 'cpu', for lack of memory: CUDA out of memory"
    ):
        session.run(batch)
    network.limit = 10**9
    assert session.run(batch).shape == (1, 3, 18, 16)


def test_a_value_that_is_not_finite_names_its_tile_and_the_session_goes_on(network: Network) -> None:
    session = session_of(network)
    pixels = np.random.default_rng().random((60, 60, 3), np.float32)
    broken = pixels.copy()
    broken[50, 10, 1] = np.inf
    with pytest.raises(SessionError, match=r"NaN or infinity for the tile of rows 32\.\.60 and columns 0\.\.32"):
        upscale_array(session, broken, tile=32, halo=0)
    np.testing.assert_array_equal(upscale_array(session, pixels, tile=32, halo=0), twice(pixels))


@pytest.mark.parametrize("message", ["CUDA error: an illegal memory access was encountered\nCUDA kernel errors", ""])
def test_other_errors_are_one_line(message: str, cuda: FakeCuda) -> None:
    class Failing(Network):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(message)

    wanted = (message.splitlines() or ["RuntimeError"])[0]
    with pytest.raises(
        SessionError, match=f"PyTorch failed on the tile of rows 0..30 and columns 0..30 on 'cpu': {wanted}$"
    ):
        upscale_array(session_of(Failing()), noise(30, 30, 3), tile=32)


def test_a_wrong_scale_is_an_error(cuda: FakeCuda) -> None:
    class Same(Network):
        def __call__(self, batch: torch.Tensor) -> torch.Tensor:
            return batch

    with pytest.raises(
        SessionError, match=r"returned the shape \(1, 3, 6, 7\) for the tile of .*, but \(1, 3, 12, 14\) was"
    ):
        upscale_array(session_of(Same()), noise(6, 7, 3), tile=32)


def test_run(network: Network) -> None:
    session = session_of(network)
    batch = np.random.default_rng().random((2, 3, 9, 8), np.float32)
    np.testing.assert_array_equal(session.run(batch), batch.repeat(2, 2).repeat(2, 3))
    session.close()
    session.close()
    with pytest.raises(SessionError, match="closed"):
        session.run(batch)


@pytest.mark.parametrize(
    ("free", "peak", "most"),
    [
        (1 << 40, 256 * 256 * 1000, MOST_PIXELS),
        (10**9, 256 * 256 * 1000, int(MEMORY_SHARE * 10**6)),
        (10**9, 0, MOST_PIXELS),
    ],
    ids=["large", "small", "nothing-measured"],
)
def test_the_default_tile_is_what_fits(free: int, peak: int, most: int, network: Network, cuda: FakeCuda) -> None:
    cuda.free, cuda.peak = free, peak
    session = session_of(network)
    assert session.most_pixels() == most
    assert session.most_pixels() == most
    assert network.calls == 2  # measured once
