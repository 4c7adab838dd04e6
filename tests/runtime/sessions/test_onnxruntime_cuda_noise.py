"""SST-Real in the CUDA session, which gives it noise: on a GPU for real, with and without a library; with a stand-in elsewhere."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from flashrib.export.onnxruntime.build import build_with_library
from flashrib.export.onnxruntime.options import LibraryOptions
from flashrib.export.options import ExportOptions
from flashrib.export.to_file import export_file
from flashrib.model.checkpoint import load_model
from flashrib.runtime.errors import SessionError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.quality.rms import rms_ratio
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.sessions.onnxruntime_cuda import OnnxRuntimeCudaSession
from flashrib.runtime.sessions.protocol import Batch
from flashrib.runtime.tiling.upscale import upscale_array
from tests.runtime.models import write_real
from tests.runtime.sessions.stand_in_cuda import compute_on_cpu
from tests.runtime.sessions.test_onnxruntime_cuda import needs_cuda

TILE = (48, 64)
SIZES = {
    (37, 52): (192, 256),
    (20, 33): (128, 192),
}  # of pictures, and of their noise: four times the next multiple of 16


class Case(NamedTuple):
    """A file."""

    precision: str
    library: bool
    size: tuple[int, int] | None


CASES = [
    Case(precision, library, size) for precision in ("fp32", "fp16") for library in (0, 1) for size in (None, TILE)
]
BOUNDS = {"fp32": 5e-5, "fp16": 5e-3}  # of the RMS of the error, relative


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_real(tmp_path_factory.mktemp("noise") / "real.safetensors")


def export(checkpoint: Path, precision: str, size: tuple[int, int] | None = None) -> Path:
    """The file of a precision and a size, made once."""
    path = checkpoint.with_name(f"{precision}{'' if size is None else size[0]}.onnx")
    if not path.exists():
        export_file(load_model(checkpoint), path, ExportOptions(precision=precision, tile=size))
    return path


def pictures(count: int, size: tuple[int, int], noise: tuple[int, int]) -> tuple[Batch, Batch]:
    random = np.random.default_rng(size[0])
    return random.random((count, 3, *size), np.float32), random.standard_normal((count, 3, *noise), np.float32)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    compute_on_cpu(monkeypatch)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_both_inputs_get_what_is_theirs(stand_in: None, checkpoint: Path, precision: str) -> None:
    """Three pictures, which the file takes one by one, of two sizes in turn; without noise it is zero."""
    path = export(checkpoint, precision)
    with OnnxRuntimeCudaSession(path) as session, OnnxRuntimeSession(path) as reference:
        assert not session.graphs
        for size, noise in [*SIZES.items()] * 2:
            given = pictures(3, size, noise)
            for drawn in (given[1], None, -given[1]):
                np.testing.assert_array_equal(session.run(given[0], drawn), reference.run(given[0], drawn))
            assert not np.array_equal(session.run(*given), session.run(given[0]))
        assert len(session._bound) == 2


def test_noise_of_another_size_is_one_line(stand_in: None, checkpoint: Path) -> None:
    batch, noise = pictures(1, (20, 33), (128, 128))
    with OnnxRuntimeCudaSession(export(checkpoint, "fp32")) as session:
        with pytest.raises(SessionError, match="ONNX Runtime failed on a batch of 1x3x20x33 on the GPU: ") as caught:
            session.run(batch, noise)
        assert "\n" not in str(caught.value)
        assert np.isfinite(session.run(batch)).all()


@pytest.mark.parametrize("size", [None, TILE], ids=["open", "fixed"])
def test_tiles_have_the_noise_of_the_seed(stand_in: None, checkpoint: Path, size: tuple[int, int] | None) -> None:
    """Through the worker, which has a tile in work while it gets the next."""
    path = export(checkpoint, "fp32", size)
    picture = np.random.default_rng(1).integers(0, 255, (70, 90, 3), np.uint8)
    tile = None if size else 32
    with OnnxRuntimeCudaSession(path) as session, OnnxRuntimeSession(path) as reference:
        results = []
        for session.seed in (5, 6):
            reference.seed = session.seed
            found, wanted = (upscale_array(s, picture, tile=tile, halo=16) for s in (session, reference))
            np.testing.assert_array_equal(found, wanted)
            results.append(found)
    assert not np.array_equal(*results)


@pytest.mark.parametrize("size", [None, TILE], ids=["open", "fixed"])
def test_a_library_built_from_the_file(checkpoint: Path, tmp_path: Path, size: tuple[int, int] | None) -> None:
    """The check of what was built gives noise of the size that goes with the picture."""
    manifest = build_with_library(
        export(checkpoint, "fp32", size), tmp_path / "m.onnx", LibraryOptions(targets=("sm80",))
    )
    assert (manifest.operators, manifest.model.noise) == (2, 1.0)


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Case, Path]:
    wanted: Case = request.param
    if not wanted.library:
        return wanted, export(checkpoint, wanted.precision, wanted.size)
    path = tmp_path_factory.mktemp("library") / "m.onnx"
    manifest = build_with_library(checkpoint, path, LibraryOptions(("current",), wanted.precision, wanted.size))
    assert manifest.checked_on == find_gpu().name
    return wanted, path


@pytest.mark.gpu
@needs_cuda
def test_on_the_gpu(case: tuple[Case, Path]) -> None:
    """Sizes in turn, three times: the third run of a file of one size is a graph that was recorded. Compared with the CPU session."""
    wanted, path = case
    fixed = wanted.size is not None
    sizes = {TILE: (192, 256)} if fixed else SIZES
    with OnnxRuntimeCudaSession(path) as session, OnnxRuntimeSession(path) as reference:
        assert (session.library, session.graphs) == (wanted.library, fixed)
        for size, noise in sizes.items():
            given = pictures(2, size, noise)
            exact = [reference.run(given[0], drawn) for drawn in (given[1], None)]
            for _ in range(3):
                found = [session.run(given[0], drawn) for drawn in (given[1], None)]
                for one, other in zip(exact, found, strict=True):
                    assert rms_ratio(one, other, 1e-9) <= BOUNDS[wanted.precision]
            assert rms_ratio(*exact, 1e-9) > 10 * BOUNDS[wanted.precision]
        assert session.graphs == fixed or not wanted.library  # some plain products cannot be recorded at such sizes


@pytest.mark.gpu
@needs_cuda
def test_seeds_on_the_gpu(case: tuple[Case, Path]) -> None:
    """Tiles by the worker: the CPU's result, and the same bits whenever the seed is the same."""
    wanted, path = case
    picture = np.random.default_rng(1).random((70, 90, 3), np.float32)
    tile = None if wanted.size else 32
    with OnnxRuntimeCudaSession(path) as session, OnnxRuntimeSession(path) as reference:
        results = []
        for session.seed in (5, 6, 5):
            results.append(upscale_array(session, picture, tile=tile, halo=16))
        reference.seed = 5
        exact = upscale_array(reference, picture, tile=tile, halo=16)
    np.testing.assert_array_equal(results[0], results[2])
    assert not np.array_equal(results[0], results[1])
    assert rms_ratio(exact, results[0], 1e-9) <= BOUNDS[wanted.precision]
