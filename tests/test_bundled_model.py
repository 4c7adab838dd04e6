"""The bundled model: what the README and the model card promise of it."""

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
from flashrib.runtime.quality.evaluate import evaluate, find_pairs
from flashrib.runtime.quality.metrics import psnr
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.tiling.plan import plan
from flashrib.runtime.tiling.upscale import upscale_array
from tests.export.tracing import trace_once
from tests.places import ROOT, SHARED
from tests.set5 import corners, psnr_of_corners

PICTURES = ROOT / "docs" / "pictures"


@pytest.fixture(scope="module")
def session() -> OnnxRuntimeSession:
    return OnnxRuntimeSession(bundled_model())


def low() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = read_picture(PICTURES / "demo_lr.png").pixels
    return pixels


@pytest.mark.parametrize(("name", "scale"), [("x2", 2), ("x4", 4), ("photo", 2)])
def test_the_onnx_file_is_made_from_the_weights(name: str, scale: int) -> None:
    about = describe_onnx(bundled_model(name))
    assert about.source_sha256 == sha256_of(bundled_weights(name))
    assert (about.architecture, about.scale, about.precision, about.alignment) == ("sst-light", scale, "fp32", 64)


@pytest.mark.parametrize(("name", "height", "width"), [("x2", 65, 70), ("x4", 50, 64), ("photo", 64, 40)])
def test_onnx_equals_pytorch(name: str, height: int, width: int) -> None:
    """Sizes that are no whole windows; one of several of the largest, which are of 64 pixels."""
    x = (low().transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)[:, :, :height, :width]
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
    high = read_picture(PICTURES / "demo_hr.png").pixels[:128, :128]
    noise = np.random.default_rng(0).normal(0, 12, (64, 64, 3))
    bad = np.clip(imresize(high, scale=0.5) + noise, 0, 255).round().astype(np.uint8)
    clean, photo = (
        psnr(upscale_array(OnnxRuntimeSession(bundled_model(name)), bad), high, 2) for name in ("x2", "photo")
    )
    assert photo > clean + 1


def test_far_better_than_bicubic(session: OnnxRuntimeSession) -> None:
    high, small = read_picture(PICTURES / "demo_hr.png").pixels[:256, :256], low()[:128, :128]
    ours, bicubic = upscale_array(session, small), imresize(small, scale=2)
    assert psnr(ours, high, border=2) > psnr(bicubic, high, border=2) + 3


def test_tiles_equal_the_whole(session: OnnxRuntimeSession) -> None:
    """At the default halo at least 60 dB; without a halo much less, so the test can see seams."""
    x = low().astype(np.float32)[:64, :200] / 255
    whole = session.run(np.ascontiguousarray(x.transpose(2, 0, 1)[None]))[0].transpose(1, 2, 0)
    assert len(plan(*x.shape[:2], (64, 64), 64, session.info.alignment, session.info.minimum)) > 1
    assert psnr(upscale_array(session, x, tile=64, halo=64), whole, peak=1.0) >= 60
    assert psnr(upscale_array(session, x, tile=64, halo=0), whole, peak=1.0) < 60


@pytest.mark.shared
@pytest.mark.slow
def test_set5_before_clamping(session: OnnxRuntimeSession) -> None:
    network = load_model(bundled_weights())
    largest = 0.0
    for pixels, _ in corners():
        x = (pixels.transpose(2, 0, 1)[None] / np.float32(255)).astype(np.float32)
        with torch.inference_mode():
            expected = network.upscale(torch.from_numpy(x)).numpy()
        largest = max(largest, float(np.abs(session.run(x) - expected).max()))
    print(f"largest difference on Set5 x2: {largest:.1e}")
    assert 0 < largest <= 1e-4


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "name", "ours", "bicubic"),
    [("Set5", "img_003", 35.72, 27.44), ("Set5", "img_005", 36.71, 32.15), ("Set14", "img_005", 30.24, 26.02)],
)
def test_quality(session: OnnxRuntimeSession, folder: str, name: str, ours: float, bicubic: float) -> None:
    """Of small pictures, as `flashrib evaluate` gives it; the whole sets: BENCHMARKS.md."""
    (pair,) = (pair for pair in find_pairs(SHARED / "data" / folder / "x2") if pair.name == name)
    (score,) = evaluate(session, [pair])
    print(folder, name, f"{score.psnr:.3f} {score.bicubic_psnr:.3f}")
    assert score.psnr == pytest.approx(ours, abs=0.01)
    assert score.bicubic_psnr == pytest.approx(bicubic, abs=0.01)


@pytest.mark.shared
@pytest.mark.slow
def test_low_precision_on_set5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Emulated, every tensor rounded: ONNX Runtime's CPU leaves out roundings in fp16, and has no bf16."""
    base = psnr_of_corners(bundled_model())
    network = load_model(bundled_weights())
    traced = trace_once(monkeypatch)
    for precision, most in (("fp16", 0.02), ("bf16", 0.05)):
        options = ExportOptions(precision, opset=23, attention="onnxruntime")
        onnx.save(emulated(onnx_from_network(network, options=options)), tmp_path / f"{precision}.onnx")
        drop = base - psnr_of_corners(tmp_path / f"{precision}.onnx")
        print(f"{precision}: loss of PSNR on Set5 x2 {drop:.4f} dB")
        assert drop != 0
        assert drop <= most
    assert len(traced) == 1
