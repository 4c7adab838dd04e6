"""Nothing is loaded that the manifest does not vouch for."""

import json
from pathlib import Path
from typing import Any

import pytest

from flashrib.runtime.artifacts.engine import (
    check_gpu,
    check_version,
    read_engine,
    read_manifest,
)
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.errors import ModelError, SessionError
from flashrib.runtime.nvidia.cuda import Gpu
from tests.runtime.sessions.engines import MANIFEST, PLAN, write_engine


def test_round_trip(tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine")
    assert read_manifest(path) == MANIFEST
    assert read_engine(path, MANIFEST) == PLAN
    assert MANIFEST.fixed_size is None


def test_fixed_size(tmp_path: Path) -> None:
    assert read_manifest(write_engine(tmp_path / "a", shapes=((64, 96),) * 3)).fixed_size == (64, 96)


@pytest.mark.parametrize(
    "change",
    [
        lambda values: values.pop("version"),
        lambda values: values.pop("model"),
        lambda values: values.pop("format"),
        lambda values: values.update(format=2),
        lambda values: values.update(more=1),
        lambda values: values.update(flavour="onnx"),
        lambda values: values.update(shapes=[[64, 64]]),
        lambda values: values.update(shapes=[[64, 64], [64], [64, 64]]),
        lambda values: values.update(shapes=[[64, 64], [64, "a"], [64, 64]]),
        lambda values: values.update(io="int8"),
        lambda values: values.update(batch=0),
        lambda values: values.update(targets=["all"]),
        lambda values: values.update(model=[]),
        lambda values: values["model"].pop("scale"),
    ],
)
def test_malformed(change: Any, tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine")
    values = json.loads(manifest_path(path).read_text())
    change(values)
    manifest_path(path).write_text(json.dumps(values))
    with pytest.raises(ModelError, match=r"a\.engine\.json: not a manifest of flashrib: .*: build the engine again"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"format": 1}'])
def test_no_manifest_at_all(text: str, tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine")
    manifest_path(path).write_text(text)
    with pytest.raises(ModelError, match="not a manifest of flashrib"):
        read_manifest(path)


@pytest.mark.parametrize("content", [PLAN[:-1], PLAN[:-1] + b"\0", PLAN + b"\0", b""])
def test_an_edited_engine(content: bytes, tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine")
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"a\.engine: is not the engine that its manifest describes \(sha256 "):
        read_engine(path, MANIFEST)


@pytest.mark.parametrize(
    ("built", "compatible", "installed", "fits"),
    [
        ("1.7.1.116", False, "1.7.1.116", True),
        ("1.7.1.116", False, "1.8.0.5", False),
        ("10.9.0.34", True, "10.9.0.34", True),
        ("10.9.0.34", True, "10.13.2.6", True),
        ("10.13.2.6", True, "10.9.0.34", False),
        ("10.9.0.34", True, "11.1.0.1", True),
    ],
)
def test_versions(built: str, compatible: bool, installed: str, fits: bool, tmp_path: Path) -> None:
    path = write_engine(tmp_path / "a.engine", version=built, version_compatible=compatible)
    manifest = read_manifest(path)
    if fits:
        check_version(path, manifest, installed)
    else:
        with pytest.raises(SessionError, match=rf"was built by TensorRT-RTX {built}, but {installed} is installed"):
            check_version(path, manifest, installed)


@pytest.mark.parametrize(
    ("flavour", "targets", "capability", "wanted"),
    [
        ("rtx", (), (8, 9), None),
        ("rtx", (), (12, 0), None),
        ("rtx", (), (9, 0), "8.0 or 8.6 or 8.9 or 12.0 or 12.1"),
        ("rtx", ("sm86", "sm120"), (12, 0), None),
        ("rtx", ("sm86", "sm120"), (8, 9), "8.6 or 12.0"),
        ("tensorrt", ("sm90",), (9, 0), None),
        ("tensorrt", ("sm90",), (8, 0), "9.0"),
        ("tensorrt", ("ampere+",), (9, 0), None),
        ("tensorrt", ("ampere+",), (7, 5), "8.0 or later"),
        ("tensorrt", (), (7, 5), None),
    ],
)
def test_gpus(
    flavour: str, targets: tuple[str, ...], capability: tuple[int, int], wanted: str | None, tmp_path: Path
) -> None:
    path = write_engine(tmp_path / "a.engine", flavour=flavour, targets=targets)
    manifest, gpu = read_manifest(path), Gpu("NVIDIA Test", capability)
    if wanted is None:
        check_gpu(path, manifest, gpu)
    else:
        has = f"NVIDIA Test, has {capability[0]}.{capability[1]}"
        with pytest.raises(SessionError, match=f"of compute capability {wanted}, but this one, {has}: build it"):
            check_gpu(path, manifest, gpu)
