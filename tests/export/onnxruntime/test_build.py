"""`flashrib build --flavour onnxruntime`: what it writes, that it runs without the library, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from flashrib.export.onnxruntime import build as builder
from flashrib.runtime.artifacts.bundled import bundled_model
from flashrib.runtime.artifacts.library import check_targets, proven_library, read_library_manifest
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.cli import main
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.sessions.onnxruntime import OnnxRuntimeSession
from flashrib.runtime.sessions.table import open_session
from tests.model.networks import SMALL
from tests.runtime.models import write_checkpoint

TINY = dataclasses.replace(SMALL, windows=((4, 4),), heads=(3,), ranks=(3,))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    write_checkpoint(folder / "tiny.safetensors", TINY)
    output = folder / "tiny.onnx"
    command = ["build", str(folder / "tiny.safetensors"), "-o", str(output), "--flavour", "onnxruntime"]
    assert main([*command, "--target", "sm80,sm90"]) == 0
    return output


def test_three_files_that_belong_together(built: Path) -> None:
    assert {path.name for path in built.parent.iterdir()} == {
        "tiny.safetensors",
        "tiny.onnx",
        "tiny.onnx.json",
        "tiny.so",
    }
    manifest = read_library_manifest(built)
    assert (manifest.targets, manifest.library, manifest.passes) == (("sm80", "sm90"), "tiny.so", True)
    assert manifest.model.precision == "fp16"
    assert proven_library(built, manifest) == built.with_name("tiny.so").resolve()
    model = onnx.load(built)
    operators = {node.op_type for node in model.graph.node if node.domain == "flashrib"}
    assert len(operators) == manifest.operators
    assert operators < {function.name for function in model.functions}
    assert built.with_name("tiny.so").read_bytes().startswith(b"\x7fELF")


def test_the_file_runs_without_its_library(built: Path) -> None:
    """At a size that is no multiple of anything, on the CPU, where "auto" goes without a GPU."""
    batch = np.random.default_rng(0).random((2, 3, 21, 26), np.float32)
    checkpoint = built.with_name("tiny.safetensors")
    with open_session(built, device="cpu") as session, open_session(checkpoint, device="cpu") as reference:
        found, wanted = session.run(batch), reference.run(batch)
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 5e-3 * np.sqrt(np.mean(wanted**2))


def test_from_an_onnx_file_the_library_holds_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "build_library", lambda table, images, output: output.write_text(table))
    output = tmp_path / "light.onnx"
    command = ["build", str(bundled_model()), "-o", str(output), "--flavour", "onnxruntime", "--target", "sm80"]
    assert main([*command, "--json"]) == 0
    manifest = read_library_manifest(output)
    assert (manifest.passes, manifest.operators, manifest.model.precision) == (False, 6, "fp32")
    table = output.with_name("light.so").read_text()
    assert table.count("op WindowAttention_") == 6
    assert {node.op_type for node in onnx.load(output).graph.node if node.domain == "flashrib"} == {
        "PositionCodes",
        *(line.split()[1] for line in table.splitlines() if line.startswith("op ")),
    }
    with OnnxRuntimeSession(bundled_model()) as one, OnnxRuntimeSession(output) as other:
        batch = np.random.default_rng(1).random((1, 3, 50, 64), np.float32)  # padded to one window of 64
        np.testing.assert_allclose(other.run(batch), one.run(batch), rtol=0, atol=1e-5)


def test_changed_files_are_refused(built: Path, tmp_path: Path) -> None:
    manifest = read_library_manifest(built)
    for name in ("tiny.onnx", "tiny.so", "tiny.onnx.json"):
        (tmp_path / name).write_bytes(built.with_name(name).read_bytes())
    copy = tmp_path / "tiny.onnx"
    library = tmp_path / "tiny.so"
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.write_bytes(content)
    with pytest.raises(ModelError, match=r"tiny\.so: is not the library that tiny\.onnx\.json describes \(sha256 "):
        proven_library(copy, manifest)
    library.unlink()
    with pytest.raises(ModelError, match=r"its library tiny\.so is missing: copy it along, or build it again"):
        proven_library(copy, manifest)
    document = json.loads(manifest_path(copy).read_text())
    manifest_path(copy).write_text(json.dumps(document | {"library": "../tiny.so"}))
    with pytest.raises(ModelError, match=r"not a manifest of flashrib: the library '\.\./tiny\.so' lies elsewhere"):
        read_library_manifest(copy)


@pytest.mark.parametrize(
    ("targets", "capability", "runs"),
    [
        (("sm90",), (9, 0), True),
        (("sm90",), (10, 0), False),
        (("sm80",), (8, 9), True),
        (("sm86",), (8, 0), False),
        (("sm86", "sm90"), (12, 0), True),
        (("sm80",), (7, 5), False),
    ],
)
def test_gpus(built: Path, targets: tuple[str, ...], capability: tuple[int, int], runs: bool) -> None:
    manifest = dataclasses.replace(read_library_manifest(built), targets=targets)
    if runs:
        check_targets(built, manifest, "GPU", capability)
        return
    with pytest.raises(SessionError, match=f"build it with --target sm{10 * capability[0] + capability[1]}"):
        check_targets(built, manifest, "GPU", capability)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "sm75"], "not a compute capability from 8.0 on"),
        (["--target", "current,sm90"], "not a compute capability from 8.0 on"),
        (["--opt", "2x2"], "a side is below 3 pixels"),
        (["--workspace", "100"], "has no such option"),
    ],
)
def test_options_that_cannot_be(
    built: Path, arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["build", str(built.with_name("tiny.safetensors")), "-o", str(tmp_path / "o.onnx")]
    assert main([*command, "--flavour", "onnxruntime", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_onnx_file_has_its_own_precision(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build", str(bundled_model()), "-o", str(tmp_path / "o.onnx"), "--flavour", "onnxruntime"]
    assert main([*command, "--precision", "fp16"]) == 2
    assert "is an ONNX file and has its own; leave it out, or build from the checkpoint" in capsys.readouterr().err


def test_a_wrong_result_is_not_written(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of one pass computes something else."""
    right = builder.with_library

    def wrong(model: onnx.ModelProto, capabilities: list[int]) -> object:
        changed, operators = right(model, capabilities)
        node = next(n for f in changed.functions for n in f.node if n.op_type == "Sigmoid")
        node.op_type = "Neg"
        return changed, operators

    monkeypatch.setattr(builder, "with_library", wrong)
    monkeypatch.setattr(builder, "build_library", lambda table, images, output: output.write_bytes(images))
    with pytest.raises(ModelError, match="differs from the network in float32"):
        builder.build_with_library(
            built.with_name("tiny.safetensors"), tmp_path / "o.onnx", builder.LibraryOptions(("sm80",))
        )
    assert not list(tmp_path.iterdir())
