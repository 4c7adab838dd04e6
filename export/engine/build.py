"""ONNX file -> engine file with its manifest, from the cache where the same engine was built before."""

import contextlib
import hashlib
import json
import logging
import os
from pathlib import Path

from flashrib.export.engine.configure import targets_of
from flashrib.export.engine.engine_from_onnx import Engine, engine_from_onnx
from flashrib.export.engine.options import EngineOptions, Shapes
from flashrib.export.engine.source import Source, read_source
from flashrib.export.operators.bodies import operators_of
from flashrib.export.operators.plugin.model import fingerprint
from flashrib.runtime.artifacts.cache import cache_folder
from flashrib.runtime.artifacts.engine import FORMAT, EngineManifest, read_engine, read_manifest
from flashrib.runtime.artifacts.files import write_whole
from flashrib.runtime.artifacts.manifest import manifest_path
from flashrib.runtime.errors import FlashribError, SessionError
from flashrib.runtime.nvidia.cuda import find_gpu
from flashrib.runtime.nvidia.flavours import FLAVOURS, load_flavour
from flashrib.runtime.progress import PhaseProgress


def build_engine(
    onnx: Path,
    output: Path,
    options: EngineOptions,
    *,
    timing_cache: Path | None = None,
    progress: PhaseProgress | None = None,
    cache: Path | None = None,
) -> tuple[EngineManifest, bool]:
    """Build the engine `output` and write its manifest beside it.

    Args:
        onnx: an ONNX file made by flashrib, in fp16 or bf16.
        output: where the engine is written; an older one is replaced once the new one is complete.
        options: what it is built for.
        timing_cache: see `engine_from_onnx`.
        progress: see `engine_from_onnx`.
        cache: folder of engines that were built before; None: `engine_folder()`.

    Returns:
        The manifest, and whether the engine came from the cache.

    Raises:
        ModelError, UsageError, SessionError, MissingPackageError: see `read_source` and `engine_from_onnx`.
        FlashribError: a file cannot be written.
    """
    if not output.parent.is_dir():
        raise FlashribError(f"{output}: the folder {output.parent} does not exist: make it first")
    source = read_source(onnx)
    folder = cache or engine_folder()
    cached = folder / f"{cache_key(source, options)}.engine"
    usable = is_private(folder)
    engine = _load(cached) if usable else None
    if engine is not None and _fits(engine.manifest, source, options):
        save_engine(engine, output)
        return engine.manifest, True
    engine = engine_from_onnx(source, options, timing_cache=timing_cache, progress=progress)
    save_engine(engine, output)
    # A full disk costs the next build its shortcut, and nothing else: an engine without its manifest is not taken.
    if usable:
        with contextlib.suppress(OSError, FlashribError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            save_engine(engine, cached)
    return engine.manifest, False


def save_engine(engine: Engine, path: Path) -> None:
    """Write an engine and its manifest, each whole or not at all; between the two, the hash tells that they do not belong together.

    Raises:
        FlashribError: they cannot be written.
    """
    write_whole(path, engine.plan)
    write_whole(manifest_path(path), engine.manifest.to_json().encode())


def engine_folder() -> Path:
    """Return the folder of engines that were built before.

    Raises:
        FlashribError: see `cache_folder`.
    """
    return cache_folder() / "engines"


def is_private(folder: Path) -> bool:
    """Say whether others may write into a folder of engines, which are code; one that is not there yet is made private.

    Where they may, a warning says so.
    """
    try:
        about = folder.stat()
    except OSError:
        return True
    if os.name != "posix" or (about.st_uid == os.geteuid() and not about.st_mode & 0o022):
        return True
    logging.getLogger("flashrib").warning(
        "flashrib: warning: %s belongs to another user or may be written to by others, so that what lies there is not trusted: no"
        " engine is taken from it; delete it, or chmod 700 it if you trust its content",
        folder,
    )
    return False


def _fits(manifest: EngineManifest, source: Source, options: EngineOptions) -> bool:
    """Say whether an engine is what was asked for, whatever the name is under which it was found."""
    flavour = FLAVOURS[options.flavour]
    wanted = {
        "flavour": flavour.name,
        "version": load_flavour(flavour, "an engine").__version__,
        "shapes": options.shapes(source.metadata, source.static),
        "precision": source.metadata.precision,
        "version_compatible": options.version_compatible,
        "onnx_sha256": source.sha256,
        "model": source.metadata,
    }
    return all(getattr(manifest, name) == value for name, value in wanted.items())


def cache_key(source: Source, options: EngineOptions) -> str:
    """Return the name under which the cache keeps an engine: everything that decides its content, hashed.

    Raises:
        UsageError, SessionError, MissingPackageError: see `engine_from_onnx`.
    """
    flavour = FLAVOURS[options.flavour]
    shapes: Shapes = options.shapes(source.metadata, source.static)
    parts = {
        "format": FORMAT,
        "onnx": source.sha256,
        "flavour": flavour.name,
        "version": load_flavour(flavour, f"an engine of the flavour {flavour.name}").__version__,
        "targets": targets_of(options),
        # TensorRT's engines are made for one model of GPU.
        "gpu": _gpu_name() if flavour.name == "tensorrt" else None,
        "shapes": shapes,
        "precision": source.metadata.precision,
        "workspace": options.workspace,
        "version_compatible": options.version_compatible,
        "attention": fingerprint(operators_of(source.model)) if options.attention == "plugin" else options.attention,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _gpu_name() -> str | None:
    try:
        return find_gpu().name
    except SessionError:
        return None


def _load(path: Path) -> Engine | None:
    """Return an engine of the cache, or None where there is none, or a damaged one."""
    try:
        manifest = read_manifest(path)
        return Engine(read_engine(path, manifest), manifest)
    except FlashribError:
        return None
