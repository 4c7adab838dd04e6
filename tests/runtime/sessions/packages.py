"""Manifests of packages for tests; the packages themselves are any bytes."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch

from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.artifacts.package import PackageManifest

MODEL = ModelInfo(
    architecture="sst-custom",
    scale=2,
    alignment=24,
    minimum=5,
    windows=((4, 4), (8, 6)),
    ranks=(4, 4),
    heads=(2, 2),
    parameters=1000,
    precision="fp32",
    whole_picture=False,
    attention="sdpa",
    source_sha256="0" * 64,
    version="0.1.0",
)


def write_package(path: Path, content: bytes = b"machine code", **changes: Any) -> PackageManifest:
    """Write `content` with a manifest that vouches for it, on the CPU with the PyTorch of this machine unless changed."""
    path.write_bytes(content)
    manifest = PackageManifest(
        flavour="aoti",
        torch=torch.__version__,
        device="cpu",
        capability=(0, 0),
        size=(24, 48),
        build_seconds=1.5,
        package_sha256=hashlib.sha256(content).hexdigest(),
        model=MODEL,
    )
    manifest = dataclasses.replace(manifest, **changes)
    manifest_path(path).write_text(manifest.to_json())
    return manifest
