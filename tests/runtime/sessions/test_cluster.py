"""A cluster on this machine: the same result as without, also when a process is killed in the middle."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from flashrib.runtime.cli import main
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.sessions.cluster import ClusterOptions, ClusterSession
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.table import open_session
from flashrib.runtime.tiling.upscale import upscale_array
from tests.runtime.models import write_onnx

ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of two processors for all tests of this module; returns a model file."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield write_onnx(tmp_path_factory.mktemp("model") / "model.onnx")
    ray.shutdown()


def picture(height: int, width: int) -> NDArray[Any]:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_killed_process_changes_nothing(cluster: Path) -> None:
    """200 tiles on two processes, one of which is killed after some of them."""
    pixels = picture(960, 1920)
    whole = upscale_array(open_session(cluster), pixels, tile=32, halo=16)
    with ClusterSession(SessionSpec(cluster), ClusterOptions(workers=2)) as session:
        assert session.info.scale == 2
        assert len(session.workers) == 2
        victim = ray.get(session._actors[0].__ray_call__.remote(lambda _: os.getpid()))
        tiles = 0

        def progress(done: int, total: int) -> None:
            nonlocal tiles
            tiles += 1
            if tiles == 40:
                os.kill(victim, signal.SIGKILL)

        began = time.perf_counter()
        result = upscale_array(session, pixels, tile=32, halo=16, progress=progress)
        assert time.perf_counter() - began < 60
        reborn = ray.get(session._actors[0].__ray_call__.remote(lambda _: os.getpid()))
    assert tiles >= 200
    assert reborn != victim
    np.testing.assert_array_equal(result, whole)


def test_gray_and_16_bits(cluster: Path) -> None:
    with ClusterSession(SessionSpec(cluster), ClusterOptions(workers=1)) as session:
        for pixels in (picture(40, 50)[..., 0], picture(40, 50).astype(np.uint16) * 257):
            whole = upscale_array(open_session(cluster), pixels)
            np.testing.assert_array_equal(upscale_array(session, pixels), whole)
        batch = np.zeros((1, 3, 8, 8), np.float32)
        assert session.run(batch).shape == (1, 3, 16, 16)


def test_errors_of_the_machines_come_as_they_are(cluster: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(cluster.read_bytes()[:50])
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        ClusterSession(SessionSpec(tmp_path / "bad.onnx"), ClusterOptions(workers=1))
    with pytest.raises(SessionError, match="no GPU"):
        ClusterSession(SessionSpec(cluster, device="cuda"))
    with pytest.raises(SessionError, match=r"[0-2] of 3 processes"):
        ClusterSession(SessionSpec(cluster), ClusterOptions(workers=3, open_seconds=5))


def test_the_command_line(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(40, 50)).save("in.png")
    command = [
        "upscale",
        "in.png",
        "-o",
        "out.png",
        "--model",
        str(cluster),
        "--cluster",
        "auto",
        "--cluster-workers",
        "1",
    ]
    assert main(command) == 0
    whole = upscale_array(open_session(cluster), picture(40, 50))
    np.testing.assert_array_equal(np.asarray(Image.open("out.png")), whole)
