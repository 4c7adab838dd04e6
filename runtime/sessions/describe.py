"""What `flashrib info` says about a model file, one function per kind of file; in JSON's types, in the order in which it is shown."""

from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.engine import read_engine, read_manifest
from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.artifacts.package import read_package, read_package_manifest
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.stand_in import onnx_info


def describe_onnx_file(path: Path, spec: SessionSpec) -> dict[str, Any]:
    """Describe an ONNX file; errors as `onnx_info`."""
    return {"file": str(path), "format": "onnx", **onnx_info(path, spec).to_json(), "sha256": sha256_of(path)}


def describe_engine(path: Path, spec: SessionSpec) -> dict[str, Any]:
    """Describe an engine, and verify its hash; errors as `read_manifest` and `read_engine`."""
    manifest = read_manifest(path)
    read_engine(path, manifest)
    smallest, _, largest = (f"{height}x{width}" for height, width in manifest.shapes)
    built = {
        "flavour": manifest.flavour,
        "built_by": manifest.version,
        "targets": manifest.targets,
        "sizes": largest if manifest.fixed_size else f"{smallest} to {largest}",
        "scratch_bytes": manifest.scratch_bytes,
        "onnx_sha256": manifest.onnx_sha256,
    }
    model = manifest.model.to_json()
    return {"file": str(path), "format": "engine", **built, **model, "sha256": manifest.engine_sha256}


def describe_package(path: Path, spec: SessionSpec) -> dict[str, Any]:
    """Describe a package, and verify its hash; errors as `read_package_manifest` and `read_package`."""
    manifest = read_package_manifest(path)
    read_package(path, manifest)
    built = {
        "flavour": manifest.flavour,
        "built_by": f"PyTorch {manifest.torch}",
        "targets": ["cpu" if manifest.device == "cpu" else f"sm{manifest.capability[0]}{manifest.capability[1]}"],
        "sizes": f"{manifest.size[0]}x{manifest.size[1]}",
    }
    model = manifest.model.to_json()
    return {"file": str(path), "format": "package", **built, **model, "sha256": manifest.package_sha256}


def describe_checkpoint_file(path: Path, spec: SessionSpec) -> dict[str, Any]:
    """Describe a checkpoint; errors as `flashrib.model.describe_checkpoint`, and MissingPackageError where PyTorch is missing."""
    from flashrib.runtime.sessions.torch_plain import require_torch

    require_torch("reading a checkpoint")
    from flashrib.model.checkpoint import describe_checkpoint

    about = describe_checkpoint(path, spec.arch, spec.key)
    precision = about.pop("dtype").replace("bfloat", "bf").replace("float", "fp")
    return {"file": str(path), "format": "checkpoint", **about, "precision": precision, "sha256": about["sha256"]}
