"""Packages of AOTInductor: what is checked before anything is loaded, and the session on a stand-in for the loader."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flashrib.runtime.artifacts.kinds import CHECKPOINT, PACKAGE, recognise_file
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.artifacts.package import read_package, read_package_manifest
from flashrib.runtime.cli import main
from flashrib.runtime.errors import FlashribError, ModelError, SessionError, UsageError
from flashrib.runtime.sessions.aoti import CpuPackageSession, open_package_session
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.table import choose_session, open_session
from flashrib.runtime.tiling.upscale import upscale_array
from tests.runtime.picture_files import noise
from tests.runtime.sessions.packages import MODEL, write_package


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Packages that were loaded; each repeats pixels, and takes one picture at a time, as compiled code does."""
    contents: list[bytes] = []

    def load(content: io.BytesIO, *, run_single_threaded: bool, device_index: int) -> Any:
        assert run_single_threaded
        assert device_index == -1
        contents.append(content.getvalue())

        def run(batch: torch.Tensor) -> torch.Tensor:
            assert batch.shape == (1, 3, 24, 48)
            return batch.repeat_interleave(2, 2).repeat_interleave(2, 3)

        return run

    monkeypatch.setattr(torch._inductor, "aoti_load_package", load)
    return contents


def test_noise_is_a_second_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(batch: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return batch.repeat_interleave(2, 2).repeat_interleave(2, 3) + noise[:, :, :48, :96]

    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda *_, **__: run)
    write_package(tmp_path / "p.pt2", model=dataclasses.replace(MODEL, noise=1.0))
    session = open_session(tmp_path / "p.pt2")
    batch = np.random.default_rng(0).random((2, 3, 24, 48), np.float32)
    given = np.random.default_rng(1).random((2, 3, 48, 96), np.float32)
    large = batch.repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(session.run(batch), large)
    np.testing.assert_array_equal(session.run(batch, given), large + given)


def test_a_manifest_comes_back(tmp_path: Path) -> None:
    manifest = write_package(tmp_path / "p.pt2")
    assert read_package_manifest(tmp_path / "p.pt2") == manifest
    assert read_package(tmp_path / "p.pt2", manifest) == b"machine code"


def test_packages_are_told_from_checkpoints(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "renamed.pth", "w") as archive:
        archive.writestr("p/data/aotinductor/model/code.so", b"")
    torch.save({}, tmp_path / "checkpoint.pth")
    (tmp_path / "damaged.pt2").write_bytes(b"PK\x03\x04")
    assert recognise_file(tmp_path / "renamed.pth") == PACKAGE
    assert recognise_file(tmp_path / "damaged.pt2") == PACKAGE
    assert recognise_file(tmp_path / "checkpoint.pth") == CHECKPOINT
    assert choose_session(tmp_path / "renamed.pth")[1] == "aoti"
    with pytest.raises(UsageError, match="is a package, which a session of the kind 'torch' cannot run"):
        choose_session(tmp_path / "renamed.pth", "torch")
    with pytest.raises(UsageError, match="session 'aoti' runs a package: build one"):
        choose_session(None, "aoti")


def test_upscaling(loaded: list[bytes], tmp_path: Path) -> None:
    write_package(tmp_path / "p.pt2")
    session = open_session(tmp_path / "p.pt2")
    assert isinstance(session, Session)
    assert isinstance(session, CpuPackageSession)
    assert loaded == [b"machine code"]
    info = session.info
    assert (info.scale, info.alignment, info.minimum, info.fixed_size) == (2, 24, 5, (24, 48))
    pixels = noise(50, 60, 3)
    np.testing.assert_array_equal(upscale_array(session, pixels, halo=0), pixels.repeat(2, 0).repeat(2, 1))
    batch = np.random.default_rng(0).random((3, 3, 24, 48), np.float32)
    np.testing.assert_array_equal(session.run(batch), batch.repeat(2, 2).repeat(2, 3))
    with pytest.raises(SessionError, match="the package takes pictures of 24x48, not 48x24"):
        session.run(batch.transpose(0, 1, 3, 2).copy())
    for _ in range(2):
        session.close()
    with pytest.raises(SessionError, match="closed"):
        session.run(batch)


@pytest.mark.parametrize("position", [0, 5, -1])
def test_one_changed_byte_is_refused(position: int, loaded: list[bytes], tmp_path: Path) -> None:
    write_package(tmp_path / "p.pt2")
    content = bytearray(b"machine code")
    content[position] ^= 1
    (tmp_path / "p.pt2").write_bytes(content)
    with pytest.raises(ModelError, match=r"p\.pt2: is not the package that its manifest describes .* build it again"):
        open_session(tmp_path / "p.pt2")
    assert loaded == []


@pytest.mark.parametrize(
    ("changes", "device", "error", "message"),
    [
        (
            {"torch": "1.0+cpu"},
            "auto",
            SessionError,
            r"was built by PyTorch 1\.0\+cpu, but .* is installed: build it again",
        ),
        (
            {"device": "cuda", "capability": (9, 0)},
            "auto",
            UsageError,
            "built for a CUDA GPU, but it would run on the CPU",
        ),
        ({"device": "cuda", "capability": (9, 0)}, "cuda", UsageError, "--device cuda: PyTorch sees no CUDA GPU here"),
        ({}, "cuda:1", UsageError, "--device cuda:1: .* was built for the CPU; leave --device out"),
        ({}, "tpu", UsageError, "device 'tpu' is not one of"),
    ],
)
def test_what_does_not_fit_here(
    changes: dict[str, Any],
    device: str,
    error: type[FlashribError],
    message: str,
    loaded: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_package(tmp_path / "p.pt2", **changes)
    with pytest.raises(error, match=message):
        open_package_session(tmp_path / "p.pt2", device)
    assert loaded == []


def test_another_gpu_is_refused(loaded: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    write_package(tmp_path / "p.pt2", device="cuda", capability=(9, 0))
    with pytest.raises(
        SessionError, match=r"compute capability 9\.0, but this one, A100, has 8\.0: build it on this GPU"
    ):
        open_package_session(tmp_path / "p.pt2")
    assert loaded == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"arch": "sst"}, ModelError, "its arch is sst-custom, not sst"),
        ({"scale": 3}, ModelError, "its scale is 2, not 3"),
        ({"precision": "fp16"}, UsageError, r"--precision fp16: .*p\.pt2 is a package and has its own: leave it out"),
        ({"cuda_graph": True}, UsageError, "only engines run as CUDA graphs"),
    ],
)
def test_contradictions(
    options: dict[str, Any], error: type[FlashribError], message: str, loaded: list[bytes], tmp_path: Path
) -> None:
    write_package(tmp_path / "p.pt2")
    with pytest.raises(error, match=message):
        open_session(tmp_path / "p.pt2", **options)


def test_pytorch_refuses_the_package(tmp_path: Path) -> None:
    write_package(tmp_path / "p.pt2")  # proven, but no package
    with pytest.raises(SessionError, match=r"p\.pt2: PyTorch cannot load this package on 'cpu': [^\n]+$"):
        open_session(tmp_path / "p.pt2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 99),
        ("flavour", "rtx"),
        ("device", "tpu"),
        ("size", [24]),
        ("size", [0, 24]),
        ("capability", ["9", "0"]),
        ("capability", [9]),
        ("model", {}),
        ("model", dataclasses.asdict(MODEL) | {"precision": "int8"}),
        ("more", 1),
    ],
)
def test_malformed_manifests(name: str, value: Any, tmp_path: Path) -> None:
    write_package(tmp_path / "p.pt2")
    path = manifest_path(tmp_path / "p.pt2")
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ModelError, match=r"p\.pt2\.json: not a manifest of flashrib: .*: build the package again"):
        read_package_manifest(tmp_path / "p.pt2")


def test_a_missing_manifest(tmp_path: Path) -> None:
    (tmp_path / "p.pt2").touch()
    with pytest.raises(ModelError, match=r"its manifest p\.pt2\.json is missing"):
        open_session(tmp_path / "p.pt2")


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_package(tmp_path / "p.pt2", device="cuda", capability=(9, 0), torch="2.11.0+cu130")
    assert main(["info", str(tmp_path / "p.pt2"), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    wanted = {
        "format": "package",
        "built_by": "PyTorch 2.11.0+cu130",
        "targets": ["sm90"],
        "sizes": "24x48",
        "scale": 2,
    }
    assert wanted.items() <= about.items()
    (tmp_path / "p.pt2").write_bytes(b"machine cod3")
    assert main(["info", str(tmp_path / "p.pt2")]) == 1
    assert "is not the package that its manifest describes" in capsys.readouterr().err


def test_verify_knows_the_precision(loaded: list[bytes], tmp_path: Path) -> None:
    write_package(tmp_path / "p.pt2", model=dataclasses.replace(MODEL, precision="fp16"))
    assert open_session(tmp_path / "p.pt2").info.precision == "fp16"
