"""Engines that nobody can run, with manifests as real ones have them, and a TensorRT that runs them."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.engine import EngineManifest
from flashrib.runtime.artifacts.info import ModelInfo
from flashrib.runtime.artifacts.manifest import manifest_path

METADATA = ModelInfo(
    architecture="sst-light",
    scale=2,
    alignment=64,
    minimum=33,
    windows=((8, 8), (64, 64)),
    ranks=(16, 24),
    heads=(3, 3),
    parameters=893340,
    precision="fp16",
    whole_picture=False,
    attention="attention",
    source_sha256="ab" * 32,
    version="0.1.0",
)
PLAN = b"vtrt" + bytes(range(256))
MANIFEST = EngineManifest(
    flavour="rtx",
    version="1.7.1.116",
    targets=("sm86", "sm120"),
    version_compatible=False,
    shapes=((64, 64), (64, 96), (128, 128)),
    batch=1,
    io="float32",
    precision="fp16",
    scratch_bytes=152303616,
    layers=528,
    build_seconds=18.8,
    onnx_sha256="cd" * 32,
    engine_sha256=hashlib.sha256(PLAN).hexdigest(),
    model=METADATA,
)


def write_engine(path: Path, **changes: Any) -> Path:
    """An engine file with its manifest, `changes` being other values of its fields."""
    path.write_bytes(PLAN)
    manifest_path(path).write_text(dataclasses.replace(MANIFEST, **changes).to_json())
    return path
