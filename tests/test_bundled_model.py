"""The bundled model: what the README and the model card promise of it."""

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from flashrib.export.emulate import emulated
from flashrib.export.options import ExportOptions
from flashrib.export.to_onnx import onnx_from_network
from flashrib.model import load_model
from flashrib.model.checkpoint import sha256_of
from flashrib.runtime.artifacts.bundled import BUNDLED, bundled_model, bundled_weights
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.cli import main
from flashrib.runtime.pictures.files import Picture, read_picture, write_picture
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.quality.evaluate import Score, average, evaluate, find_pairs
from flashrib.runtime.quality.metrics import psnr
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.tiling.plan import plan
from flashrib.runtime.tiling.upscale import upscale_array
from tests.places import ROOT, SHARED

PICTURES = ROOT / "docs" / "pictures"


@pytest.fixture(scope="module")
def session() -> OnnxRuntimeSession:
    return OnnxRuntimeSession(bundled_model())


@functools.cache
def quality(model: Path, name: str, first: int = 0, stop: int | None = None) -> Score:
    """Figures of a model on the pictures of a set from number `first` on, up to `stop`."""
    pairs = find_pairs(SHARED / "data" / name / "x2")
    return average(list(evaluate(OnnxRuntimeSession(model), pairs[first:stop])))


def low() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = read_picture(PICTURES / "demo_lr.png").pixels
    return pixels


@pytest.mark.parametrize(("name", "scale"), [("x2", 2), ("x4", 4), ("photo", 2)])
def test_the_onnx_file_is_made_from_the_weights(name: str, scale: int) -> None:
    about = describe_onnx(bundled_model(name))
    assert about.source_sha256 == sha256_of(bundled_weights(name))
    assert (about.architecture, about.scale, about.precision, about.alignment) == ("sst-light", scale, "fp32", 64)


@pytest.mark.parametrize("name", BUNDLED)
def test_onnx_equals_pytorch(name: str) -> None:
    x = (low().transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)[:, :, :65, :70]
    with torch.inference_mode():
        expected = load_model(bundled_weights(name)).upscale(torch.from_numpy(x)).numpy()
    assert np.abs(OnnxRuntimeSession(bundled_model(name)).run(x) - expected).max() <= 1e-4


def test_the_command_takes_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.ascontiguousarray(low()[:20, :24])
    write_picture(tmp_path / "small.png", Picture(pixels))
    sizes = {}
    for name in BUNDLED:
        out = tmp_path / f"{name}.png"
        assert main(["upscale", str(tmp_path / "small.png"), "-o", str(out), "--model", name, "--device", "cpu"]) == 0
        sizes[name] = read_picture(out).pixels
    assert {name: picture.shape[:2] for name, picture in sizes.items()} == {
        "x2": (40, 48),
        "x4": (80, 96),
        "photo": (40, 48),
    }
    assert not np.array_equal(sizes["x2"], sizes["photo"])


def test_photo_takes_noise_away() -> None:
    """On a noisy picture it is far better than the model for clean ones."""
    high = read_picture(PICTURES / "demo_hr.png").pixels[:200, :240]
    noise = np.random.default_rng(0).normal(0, 12, (100, 120, 3))
    bad = np.clip(imresize(high, scale=0.5) + noise, 0, 255).round().astype(np.uint8)
    clean, photo = (
        psnr(upscale_array(OnnxRuntimeSession(bundled_model(name)), bad), high, 2) for name in ("x2", "photo")
    )
    assert photo > clean + 1


def test_far_better_than_bicubic(session: OnnxRuntimeSession) -> None:
    high = read_picture(PICTURES / "demo_hr.png").pixels
    ours, bicubic = upscale_array(session, low()), imresize(low(), scale=2)
    assert psnr(ours, high, border=2) > psnr(bicubic, high, border=2) + 3


def test_tiles_equal_the_whole(session: OnnxRuntimeSession) -> None:
    """At the default halo at least 60 dB; without a halo much less, so the test can see seams."""
    x = low().astype(np.float32)[:72, :200] / 255
    whole = session.run(np.ascontiguousarray(x.transpose(2, 0, 1)[None]))[0].transpose(1, 2, 0)
    assert len(plan(*x.shape[:2], (64, 64), 64, session.info.alignment, session.info.minimum)) > 1
    assert psnr(upscale_array(session, x, tile=64, halo=64), whole, peak=1.0) >= 60
    assert psnr(upscale_array(session, x, tile=64, halo=0), whole, peak=1.0) < 60


@pytest.mark.shared
@pytest.mark.slow
def test_set5_before_clamping(session: OnnxRuntimeSession) -> None:
    """Corners of 120x120 pixels, for the sake of time."""
    network = load_model(bundled_weights())
    largest = 0.0
    for pair in find_pairs(SHARED / "data" / "Set5" / "x2"):
        assert pair.low is not None
        pixels = read_picture(pair.low).pixels[:120, :120]
        x = (pixels.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)
        with torch.inference_mode():
            expected = network.upscale(torch.from_numpy(x)).numpy()
        largest = max(largest, float(np.abs(session.run(x) - expected).max()))
    print(f"largest difference on Set5 x2: {largest:.1e}")
    assert 0 < largest <= 1e-4


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "first", "stop", "least", "bicubic"),
    [("Set5", 0, 5, 37.2, 33.7), ("Set14", 3, 9, 33.9, 31.5)],
    ids=["Set5", "Set14"],
)
def test_quality(name: str, first: int, stop: int, least: float, bicubic: float) -> None:
    """Six pictures of Set14, for the sake of time; all of them: BENCHMARKS.md."""
    mean = quality(bundled_model(), name, first, stop)
    assert mean.psnr >= least
    assert mean.bicubic_psnr == pytest.approx(bicubic, abs=0.05)


@pytest.mark.shared
@pytest.mark.slow
def test_low_precision_on_set5(tmp_path: Path) -> None:
    """Emulated, every tensor rounded: ONNX Runtime's CPU leaves out roundings in fp16, and has no bf16.

    Without the largest picture, which has as many pixels as the others together, for the sake of time.
    """
    base = quality(bundled_model(), "Set5", 1).psnr
    network = load_model(bundled_weights())
    for precision, most in (("fp16", 0.02), ("bf16", 0.05)):
        model = onnx_from_network(network, options=ExportOptions(precision=precision, attention="onnxruntime"))
        onnx.save(emulated(model), tmp_path / f"{precision}.onnx")
        drop = base - quality(tmp_path / f"{precision}.onnx", "Set5", 1).psnr
        print(f"{precision}: loss of PSNR on Set5 x2 {drop:.4f} dB")
        assert drop != 0
        assert drop <= most
