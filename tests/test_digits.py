"""From a trained checkpoint to classes: the classifier of digits of benchmarks/digits.py in every runtime, and what tells a wrong mask."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flashrib.export.options import ExportOptions
from flashrib.export.package.build import build_package
from flashrib.export.package.options import PackageOptions
from flashrib.export.to_file import export_file
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import load_model, save_safetensors
from flashrib.model.network import Network
from flashrib.runtime.cli import main
from flashrib.runtime.errors import UsageError
from flashrib.runtime.quality.parity import verify
from flashrib.runtime.sessions.spec import SessionSpec
from tests.places import ROOT

pytest.importorskip("sklearn", reason="scikit-learn, which has the pictures, is not installed")

TRAINED = ROOT / "tests" / "golden" / "fibottention_digits.safetensors"


@pytest.fixture(scope="module")
def pictures() -> tuple[Tensor, Tensor]:
    """The 360 test pictures (360, 3, 16, 16) in 0..1, and their labels."""
    from benchmarks.digits import digits

    _, _, x, y = digits()
    assert len(x) == 360
    return x.float() / 255, y


@pytest.fixture(scope="module")
def network() -> Network:
    return load_model(TRAINED)


@pytest.fixture(scope="module")
def logits(network: Network, pictures: tuple[Tensor, Tensor]) -> Tensor:
    with torch.inference_mode():
        return network(pictures[0])


def exported(network: Network, folder: Path, **options: object) -> Path:
    path = folder / "digits.onnx"
    export_file(network, path, ExportOptions(**options))
    return path


def run(model: Path, pictures: Tensor, **options: object) -> Tensor:
    with SessionSpec(model, **options).open() as session:
        return torch.from_numpy(session.run(pictures.numpy()))


def relabelled(network: Network, mask_mode: str) -> Network:
    """The same weights with another mask."""
    other = network_from_config(dataclasses.replace(network.config, mask_mode=mask_mode))
    other.load_state_dict(network.state_dict())
    return other.eval()


def test_accuracy(logits: Tensor, pictures: tuple[Tensor, Tensor]) -> None:
    assert (logits.argmax(-1) == pictures[1]).float().mean() >= 0.97


@pytest.mark.parametrize("body", ["standard", "dense"])
def test_onnx_gives_the_same_classes(
    body: str, network: Network, logits: Tensor, pictures: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    out = run(exported(network, tmp_path, attention=body), pictures[0])
    assert torch.equal(out.argmax(-1), logits.argmax(-1))
    assert (out - logits).abs().max() <= 1e-4


def test_float16_gives_the_same_classes(
    network: Network, logits: Tensor, pictures: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    out = run(exported(network, tmp_path, precision="fp16"), pictures[0])
    assert torch.equal(out.argmax(-1), logits.argmax(-1))
    assert (out - logits).square().mean().sqrt() <= 5e-3 * logits.square().mean().sqrt()


@pytest.mark.parametrize("mask_mode", ["zero_logit", "dense"])
def test_a_wrong_mask_fails_verify(network: Network, tmp_path: Path, mask_mode: str) -> None:
    wrong = exported(relabelled(network, mask_mode), tmp_path)
    right = tmp_path / "right.safetensors"
    save_safetensors(right, network)
    parity = verify(right, [wrong])
    assert not parity.passed
    assert "differs by" in str(parity.artifacts[0].failure)


def test_verify_passes_the_right_file_and_writes_its_report(network: Network, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    assert main(["verify", str(TRAINED), str(exported(network, tmp_path)), "--report", str(report)]) == 0
    assert "random" in report.read_text()


def test_a_package_of_another_size_is_refused(tmp_path: Path) -> None:
    options = PackageOptions("fp32", (64, 64), "cpu")
    with pytest.raises(UsageError, match="takes 16x16 pixels only"):
        build_package(TRAINED, tmp_path / "digits.pt2", options)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-4), ("fp16", 5e-3), ("bf16", 2e-2)])
def test_gpu_session_gives_the_same_classes(
    precision: str, bound: float, logits: Tensor, pictures: tuple[Tensor, Tensor]
) -> None:
    for _ in range(3):  # the third is a replayed recording
        out = run(TRAINED, pictures[0], device="cuda", precision=precision)
        assert np.isfinite(out.numpy()).all()
        assert (out - logits).square().mean().sqrt() <= bound * logits.square().mean().sqrt()
        assert precision == "bf16" or torch.equal(out.argmax(-1), logits.argmax(-1))
