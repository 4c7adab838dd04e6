"""The CUDA session: on a GPU for real, with and without a library; what can be said without one."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flashrib.runtime.artifacts.bundled import bundled_model
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.errors import ModelError, OutOfMemoryError, SessionError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions import onnxruntime_cuda
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession, cuda_can_run
from flashrib.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
from flashrib.runtime.sessions.providers import PROVIDERS, has_provider
from flashrib.runtime.sessions.table import open_session
from flashrib.runtime.tiling.upscale import upscale_array
from tests.model.networks import SMALL, SMALL_ESC
from tests.runtime.models import write_checkpoint, write_onnx
from tests.runtime.sessions.stand_in_cuda import compute_on_cpu
from tests.runtime.sessions.test_onnxruntime import METADATA

SHIFTED = dataclasses.replace(SMALL, windows=((4, 4), (8, 6), (4, 4)), heads=(3, 2, 4), ranks=(3, 5, 17))
WIDE = dataclasses.replace(SMALL, dim=72, ffn_dim=100)


def cuda() -> bool:
    try:
        find_gpu()
    except SessionError:
        return False
    return has_provider(PROVIDERS["cuda"])


needs_cuda = pytest.mark.skipif(not cuda(), reason="needs an NVIDIA GPU and onnxruntime-gpu")


@pytest.fixture(scope="module", params=["sst", "shifted", "wide", "esc"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from flashrib.export.onnxruntime.build import build_with_library
    from flashrib.export.onnxruntime.options import LibraryOptions

    config = {"sst": SMALL, "shifted": SHIFTED, "wide": WIDE, "esc": SMALL_ESC}[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    write_checkpoint(folder / "c.safetensors", config)
    size = (48, 72) if config is SMALL_ESC else None
    manifest = build_with_library(
        folder / "c.safetensors", folder / "m.onnx", LibraryOptions(("current",), "fp16", size)
    )
    assert manifest.checked_on == find_gpu().name
    return folder / "m.onnx"


@pytest.mark.gpu
@needs_cuda
def test_right_at_any_size_and_no_memory_is_lost(built: Path) -> None:
    import torch

    random = np.random.default_rng(0)
    with OnnxRuntimeCudaSession(built) as session, OnnxRuntimeSession(built) as bodies:
        assert session.library
        fixed = session.info.fixed_size
        assert session.graphs
        sizes = [fixed] if fixed else [(9, 11), (48, 72), (33, 40), (64, 64), (35, 130), (7, 200)]
        for size in sizes * 3:  # the third run of a size is a graph that was recorded
            batch = random.random((2, 3, *size), np.float32)
            found, wanted = session.run(batch), bodies.run(batch)
            assert rms_ratio(wanted, found, 1e-9) < 5e-3
        torch.cuda.synchronize()
        for index in range(300):
            if index == 100:
                before = torch.cuda.mem_get_info()[0]
            size = sizes[index % len(sizes)] if fixed else (9 + index % 25, 40 + index % 37)
            assert np.isfinite(session.run(random.random((1, 3, *size), np.float32))).all()
        assert before - torch.cuda.mem_get_info()[0] < 64 << 20


@pytest.mark.gpu
@needs_cuda
def test_tiles_are_those_of_the_whole(built: Path) -> None:
    picture = np.random.default_rng(1).random((70, 90, 3), np.float32)
    with open_session(built) as session, OnnxRuntimeSession(built) as bodies:
        assert isinstance(session, OnnxRuntimeCudaSession)
        halo = 0 if session.info.fixed_size else 8  # the fixed size is two windows high
        found, wanted = (upscale_array(s, picture, tile=24, halo=halo) for s in (session, bodies))
    assert rms_ratio(wanted, found, 1e-9) < 5e-3


@pytest.mark.gpu
@needs_cuda
def test_the_plain_file_on_the_gpu() -> None:
    batch = np.random.default_rng(2).random((1, 3, 100, 130), np.float32)
    with OnnxRuntimeCudaSession(bundled_model()) as session, OnnxRuntimeSession(bundled_model()) as reference:
        assert not session.library
        np.testing.assert_allclose(session.run(batch), reference.run(batch), rtol=0, atol=1e-4)


@pytest.mark.gpu
@needs_cuda
def test_full_memory_says_so_and_smaller_tiles_fit(built: Path) -> None:
    with OnnxRuntimeCudaSession(built, options={"gpu_mem_limit": str(96 << 20)}) as session:
        if session.info.fixed_size:
            return
        with pytest.raises(OutOfMemoryError, match="for lack of memory"):
            session.run(np.zeros((1, 3, 2048, 2048), np.float32))
        session.workers[0].abandon()
        assert session.run(np.zeros((1, 3, 64, 64), np.float32)).shape[0] == 1


@pytest.mark.gpu
@needs_cuda
def test_a_changed_library_is_not_loaded(built: Path, tmp_path: Path) -> None:
    for name in ("m.onnx", "m.so", "m.onnx.json"):
        (tmp_path / name).write_bytes(built.with_name(name).read_bytes())
    with (tmp_path / "m.so").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"m\.so: is not the library that m\.onnx\.json describes"):
        OnnxRuntimeCudaSession(tmp_path / "m.onnx")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_on_cpu(monkeypatch)


def test_sizes_come_and_go(stand_in: None, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    model = write_onnx(tmp_path / "m.onnx")
    with OnnxRuntimeCudaSession(model) as session, OnnxRuntimeSession(model) as reference:
        for side in (4, 5, 4, *range(6, 15), 4):  # more sizes than are kept
            batch = random.random((1, 3, side, 7), np.float32)
            np.testing.assert_array_equal(session.run(batch), reference.run(batch))
        assert len(session._bound) == onnxruntime_cuda.SIZES
        session.workers[0].abandon()
        assert not session._bound
        np.testing.assert_array_equal(session.run(batch), reference.run(batch))
    assert not session.workers
    with pytest.raises(SessionError, match="the ONNX Runtime session is closed"):
        session.run(batch)


def test_what_cannot_be_recorded_is_launched(stand_in: None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batch = np.random.default_rng(0).random((1, 3, 9, 7), np.float32)
    model = write_onnx(tmp_path / "m.onnx")

    class Recording:
        def __init__(self, session: Any) -> None:
            self.io_binding = session.io_binding

        def run_with_iobinding(self, *arguments: Any) -> None:
            raise RuntimeError("CUDA failure 901: operation failed due to a previous error during capture")

    with OnnxRuntimeCudaSession(model) as session, OnnxRuntimeSession(model) as reference:
        session.graphs, session._session = True, Recording(session._session)
        np.testing.assert_array_equal(session.run(batch), reference.run(batch))
        assert not session.graphs
    assert [r.getMessage() for r in caplog.records] == [
        f"flashrib: warning: {model} cannot be recorded as a CUDA graph on cuda:0: kernels are launched one by one, which slows"
        " small tiles down"
    ]


def test_tiles_through_the_worker(stand_in: None, tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (70, 80, 3), np.uint8)
    model = write_onnx(tmp_path / "m.onnx")
    with OnnxRuntimeCudaSession(model) as session, OnnxRuntimeSession(model) as reference:
        found, wanted = (upscale_array(s, picture, tile=16, halo=0) for s in (session, reference))
    np.testing.assert_array_equal(found, wanted)


def test_attention_that_crashes_is_refused(stand_in: None, tmp_path: Path) -> None:
    """Seen with sst-plus, whose ranks are 18 and 34, in ONNX Runtime 1.31: an illegal memory access ends all work on the GPU."""
    model = write_onnx(tmp_path / "m.onnx", metadata=dataclasses.replace(METADATA, ranks=(16, 18)).to_properties())
    with pytest.raises(
        SessionError, match=r"ranks that are no multiple of 8 \(18\).*export it again, build it with flashrib build"
    ):
        OnnxRuntimeCudaSession(model)


ODD = dataclasses.replace(SMALL, dim=60, windows=((4, 4), (32, 32)), heads=(2, 2), ranks=(18, 34))


def write_odd(folder: Path) -> Path:
    """Heads of 30 channels, as of sst-plus."""
    from flashrib.export.options import ExportOptions
    from flashrib.export.to_file import export_file
    from tests.model.networks import small_network

    export_file(small_network(ODD), folder / "odd.onnx", ExportOptions(precision="fp16"))
    return folder / "odd.onnx"


def test_completed_heads_are_taken(stand_in: None, tmp_path: Path) -> None:
    """They are completed where they are written: no reason against the file, and the definition's result."""
    model = write_odd(tmp_path)
    info = describe_onnx(model)
    assert info.ranks == (18, 34)
    assert not onnxruntime_cuda.reason_against(model, info)


@pytest.mark.gpu
@needs_cuda
def test_heads_of_30_channels_on_the_gpu(tmp_path: Path) -> None:
    """In a process of its own: a crash would end all work of this one on the GPU."""
    model = write_odd(tmp_path)
    batch = np.random.default_rng(3).random((1, 3, 97, 130), np.float32)
    np.save(tmp_path / "batch.npy", batch)
    code = (
        "import sys, numpy; from flashrib.runtime.sessions.table import open_session\n"
        "model, batch, result = sys.argv[1:]\n"
        "with open_session(model, device='cuda', kind='onnxruntime') as session: numpy.save(result, session.run(numpy.load(batch)))"
    )
    arguments = [str(path) for path in (model, tmp_path / "batch.npy", tmp_path / "result.npy")]
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    found = np.load(tmp_path / "result.npy")
    with OnnxRuntimeSession(model) as reference:
        wanted = reference.run(batch)
    assert rms_ratio(wanted, found, 1e-9) < 5e-3


def test_without_a_gpu_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise SessionError(
            "there is no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded), and an engine ..."
        )

    monkeypatch.setattr(onnxruntime_cuda, "require_provider", lambda provider: None)
    monkeypatch.setattr(onnxruntime_cuda, "find_gpu", none)
    with pytest.raises(SessionError, match=r"the provider cuda needs an NVIDIA GPU, and there is no NVIDIA driver on"):
        OnnxRuntimeCudaSession(bundled_model())


@pytest.mark.skipif(cuda(), reason="this machine can")
def test_auto_takes_the_cpu_where_cuda_cannot_run() -> None:
    assert not cuda_can_run(bundled_model(), describe_onnx(bundled_model()))
    with open_session() as session:
        assert isinstance(session, OnnxRuntimeSession)
