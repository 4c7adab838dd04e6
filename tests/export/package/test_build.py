"""Packages of AOTInductor: built for real on the CPU, and on a GPU where there is one; the rest with a stand-in for the compiler."""

import dataclasses
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._inductor

from flashrib.export.package import build as aoti
from flashrib.export.package.build import build_package
from flashrib.export.package.options import PackageOptions
from flashrib.model.architectures.registry import network_from_config
from flashrib.model.checkpoint import save_safetensors
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.artifacts.package import read_package, read_package_manifest
from flashrib.runtime.cli import main
from flashrib.runtime.errors import CheckpointError, FlashribError, ModelError, SessionError, UsageError
from flashrib.runtime.noise import NoiseMap, repeated_noise
from flashrib.runtime.sessions.aoti import open_package_session
from flashrib.runtime.sessions.table import open_session
from flashrib.runtime.sessions.torch_gpu.session import open_gpu_session
from flashrib.runtime.sessions.torch_plain import TorchSession
from flashrib.runtime.tiling.upscale import upscale_array
from tests.model.architectures.sst_real.test_recognise import SMALL as REAL
from tests.model.networks import SMALL
from tests.runtime.models import write_checkpoint
from tests.runtime.tiling.test_upscale import noise

TINY = dataclasses.replace(SMALL, windows=((4, 4),), heads=(3,), ranks=(3,))
CPU = PackageOptions("fp32", (24, 32), "cpu")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "tiny.safetensors", TINY)
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was compiled; the package is some bytes."""
    seen: list[tuple[Any, ...]] = []

    def compile_(network: Any, package: Path, size: tuple[int, int], options: PackageOptions) -> None:
        seen.append((network.config, size, options))
        package.write_bytes(b"machine code")

    monkeypatch.setattr(aoti, "_compile", compile_)
    return seen


@pytest.mark.slow
def test_a_package_for_the_cpu(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    package = tmp_path / "p.pt2"
    command = ["build", str(checkpoint), "-o", str(package), "--flavour", "aoti", "--target", "cpu", "--opt", "24x32"]
    assert main([*command, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["device"], document["size"], document["model"]["architecture"]) == ("cpu", [24, 32], "sst-custom")
    session = open_session(package)
    batch = np.random.default_rng().random((2, 3, 24, 32), np.float32)
    wanted = TorchSession(checkpoint, device="cpu").run(batch)
    np.testing.assert_allclose(session.run(batch), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())
    assert torch.get_num_threads() == threads
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.safetensors", "p.pt2", "p.pt2.json"}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_package_for_this_gpu(precision: str, tmp_path: Path) -> None:
    checkpoint, package = tmp_path / "small.safetensors", tmp_path / "p.pt2"
    write_checkpoint(checkpoint, SMALL)
    build_package(checkpoint, package, PackageOptions(precision, (48, 72)))
    session = open_session(package)
    traced = open_gpu_session(checkpoint, ["cuda:0"], precision)
    batch = np.random.default_rng().random((2, 3, 48, 72), np.float32)
    wanted = traced.run(batch)
    assert np.abs(session.run(batch) - wanted).max() < (1e-2 if precision == "fp16" else 1e-4) * np.abs(wanted).max()
    with pytest.raises(SessionError, match="the package takes pictures of 48x72, not 72x48"):
        session.run(batch.transpose(0, 1, 3, 2).copy())
    pixels = noise(100, 100, 3)
    first = upscale_array(session, pixels, halo=0)
    for _ in range(3):  # plain, recorded, replayed
        np.testing.assert_array_equal(upscale_array(session, pixels, halo=0), first)
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 1
    package.write_bytes(content)
    with pytest.raises(ModelError, match="is not the package that its manifest describes"):
        open_session(package)


def test_what_the_manifest_says(checkpoint: Path, tmp_path: Path, compiled: list[tuple[Any, ...]]) -> None:
    manifest = build_package(checkpoint, tmp_path / "p.pt2", CPU)
    assert compiled == [(TINY, (24, 32), CPU)]
    assert read_package_manifest(tmp_path / "p.pt2") == manifest
    assert read_package(tmp_path / "p.pt2", manifest) == b"machine code"
    assert (manifest.torch, manifest.device, manifest.capability) == (torch.__version__, "cpu", (0, 0))
    assert (manifest.model.scale, manifest.model.alignment, manifest.model.precision) == (2, 4, "fp32")


def test_the_gpu_is_in_the_manifest(
    checkpoint: Path, tmp_path: Path, compiled: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    manifest = build_package(checkpoint, tmp_path / "p.pt2", PackageOptions())
    assert (manifest.device, manifest.capability, manifest.size) == ("cuda", (9, 0), (768, 768))
    assert manifest.model.precision == "fp16"


@pytest.mark.parametrize(
    "error", [RuntimeError("C++ compile error\nframe"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
def test_a_failed_build_leaves_everything_as_it_was(
    error: BaseException,
    checkpoint: Path,
    tmp_path: Path,
    compiled: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = build_package(checkpoint, tmp_path / "p.pt2", CPU)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(network: Any, package: Path, *_: Any) -> None:
        package.write_bytes(b"half")
        raise error

    monkeypatch.setattr(aoti, "_compile", fail)
    with pytest.raises((SessionError, KeyboardInterrupt)) as caught:
        build_package(checkpoint, tmp_path / "p.pt2", CPU)
    if isinstance(caught.value, SessionError):
        assert "AOTInductor cannot compile sst-custom for 24x32 pixels: C++ compile error" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert read_package_manifest(tmp_path / "p.pt2") == old


def test_killed_between_package_and_manifest(
    checkpoint: Path, tmp_path: Path, compiled: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build_package(checkpoint, tmp_path / "p.pt2", CPU)
    whole = manifest_path(tmp_path / "p.pt2").read_text()
    monkeypatch.setattr(aoti, "_compile", lambda network, package, *_: package.write_bytes(b"newer code"))
    build_package(checkpoint, tmp_path / "p.pt2", CPU)
    manifest_path(tmp_path / "p.pt2").write_text(whole)  # as if the second file had not been written
    with pytest.raises(ModelError, match="is not the package that its manifest describes"):
        open_session(tmp_path / "p.pt2")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"options": PackageOptions()}, SessionError, "built on that GPU, and PyTorch sees none here: .* --target cpu"),
        ({"options": PackageOptions("fp32", (2, 24), "cpu")}, UsageError, "2x24: a side is below 3 pixels, the least"),
        ({"output": Path("nowhere/p.pt2")}, FlashribError, "the folder nowhere does not exist: make it first"),
        ({"scale": 3}, CheckpointError, "trained for x2, so it cannot upscale x3"),
        ({"checkpoint": Path("nowhere.pth")}, FlashribError, "nowhere.pth"),
    ],
    ids=["no-gpu", "small", "folder", "scale", "checkpoint"],
)
def test_bad_input(
    options: dict[str, Any],
    error: type[FlashribError],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    compiled: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = {"checkpoint": checkpoint, "output": tmp_path / "p.pt2", "options": CPU} | options
    with pytest.raises(error, match=message) as caught:
        build_package(**given)
    assert "\n" not in str(caught.value)
    assert compiled == []
    assert list(tmp_path.glob("p.pt2*")) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("int8",), "precision 'int8' is not one of fp32, fp16, bf16"),
        (("fp16", None, "sm90"), "target 'sm90' is not one of current, cpu"),
        (("fp16", None, "cpu"), "--precision fp16: a package for the CPU computes in fp32"),
    ],
)
def test_bad_options(values: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PackageOptions(*values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--flavour", "aoti", "--min", "24x24"],
            "--min: --flavour aoti has no such option, it belongs to rtx or tensorrt: leave it out",
        ),
        (
            ["--flavour", "aoti", "--version-compatible"],
            "--version-compatible: --flavour aoti has no such option, it belongs to tensorrt",
        ),
        (
            ["--flavour", "aoti", "--timing-cache", "t"],
            "--timing-cache: --flavour aoti has no such option, it belongs to tensorrt",
        ),
        (["--flavour", "aoti", "--target", "sm80,sm90"], "--target sm80,sm90: a package is for one target"),
        (
            ["--flavour", "rtx", "--precision", "fp16"],
            "--precision: --flavour rtx has no such option, it belongs to aoti",
        ),
    ],
)
def test_options_of_the_other_kind(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "tiny.safetensors", "-o", str(tmp_path / "p.pt2"), *arguments]) == 2
    assert message in capsys.readouterr().err


def compile_nothing(program: Any, package_path: str) -> None:
    Path(package_path).write_bytes(b"machine code")


def test_a_package_that_computes_something_else_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler's result is another network's: nothing may be written."""
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_nothing)
    monkeypatch.setattr(
        aoti, "run_alone", lambda package, given: torch.rand(1, 3, *(2 * side for side in given[0].shape[2:]))
    )
    with pytest.raises(SessionError, match="compiled this network into something else"):
        build_package(checkpoint, tmp_path / "p.pt2", CPU)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.safetensors"}


def test_a_package_that_a_new_process_cannot_load_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_nothing)
    with pytest.raises(SessionError, match="does not run in a new process, so nothing was written: ") as caught:
        build_package(checkpoint, tmp_path / "p.pt2", CPU)
    assert "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.safetensors"}


def test_a_package_that_ends_its_process_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_nothing)
    crash = f"import os, signal; os.kill(os.getpid(), signal.{signal.SIGSEGV.name})"
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **options: run([command[0], "-c", crash], **options))
    with pytest.raises(SessionError, match=r"ends any process that loads it \(SIGSEGV\), .* environment variable CXX"):
        build_package(checkpoint, tmp_path / "p.pt2", CPU)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.safetensors"}


@pytest.mark.parametrize("noise", ["input", 3])
def test_a_network_that_takes_noise(noise: str | int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that the compiler is given takes the noise as well, and so does the session; the compiler is left out."""

    def compile_(program: Any, package_path: str) -> None:
        torch.export.save(program, package_path)

    def load(content: Any, **_: Any) -> Any:
        return torch.export.load(content).module()

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", load)
    monkeypatch.setattr(aoti, "run_alone", lambda package, given: load(package)(*given))
    network = network_from_config(REAL).eval()
    save_safetensors(tmp_path / "real.safetensors", network)
    build_package(tmp_path / "real.safetensors", tmp_path / "p.pt2", PackageOptions("fp32", (24, 32), "cpu", noise))
    session = open_package_session(tmp_path / "p.pt2")
    picture = np.random.default_rng(0).random((24, 32, 3), np.float32)
    session.seed = 3
    given = NoiseMap(3).part(slice(0, 32), slice(0, 32))
    if noise == 3:
        given = repeated_noise(3, 4, 16, 24, 32)
    with torch.no_grad():
        batch = torch.from_numpy(picture).permute(2, 0, 1)[None]
        wanted = network.reference(batch, torch.from_numpy(given))[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(upscale_array(session, picture, halo=0), wanted, atol=1e-4)
