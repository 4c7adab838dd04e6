"""The command `flashrib info`."""

import argparse
import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.bundled import default_model
from flashrib.runtime.artifacts.engine import is_engine, read_engine, read_manifest
from flashrib.runtime.artifacts.onnx_file import describe_onnx
from flashrib.runtime.artifacts.package import is_package, read_package, read_package_manifest
from flashrib.runtime.cli.output import print_json, print_table
from flashrib.runtime.sessions.table import check_agreement, is_checkpoint
from flashrib.runtime.sessions.torch_plain import require_torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        type=Path,
        help="an ONNX file, an engine, a package or a checkpoint; default: the bundled ONNX file",
    )
    parser.add_argument("--arch", metavar="NAME", help="architecture of a checkpoint that does not say it itself")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Say what a model file is.

    Architecture, scale, windows, ranks, heads, parameters, alignment and minimum
    side (in pixels of the input), precision and hash; of an engine or a package also
    what it was built for. Only checkpoints need PyTorch for it.

    examples:
      flashrib info
      flashrib info SSTlight_DFLIP_X2.pth --json
    """
    path = arguments.model or default_model()
    if is_engine(path):
        about = _about_engine(path, arguments.arch)
    elif is_package(path):
        about = _about_package(path, arguments.arch)
    else:
        about = _about_checkpoint(path, arguments.arch) if is_checkpoint(path) else _about_onnx(path, arguments.arch)
    if arguments.json:
        print_json(about)
    else:
        print_table([(name.replace("_", " "), _text(name, value)) for name, value in about.items()])
    return 0


def _about_onnx(path: Path, arch: str | None) -> dict[str, Any]:
    metadata = describe_onnx(path)
    check_agreement(path, metadata, arch, None)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": str(path), "format": "onnx", **dataclasses.asdict(metadata), "sha256": sha256}


def _about_engine(path: Path, arch: str | None) -> dict[str, Any]:
    manifest = read_manifest(path)
    check_agreement(path, manifest.model, arch, None)
    read_engine(path, manifest)  # verifies the hash
    smallest, _, largest = (f"{height}x{width}" for height, width in manifest.shapes)
    built = {
        "flavour": manifest.flavour,
        "built_by": manifest.version,
        "targets": manifest.targets,
        "sizes": largest if manifest.fixed_size else f"{smallest} to {largest}",
        "scratch_bytes": manifest.scratch_bytes,
        "onnx_sha256": manifest.onnx_sha256,
    }
    model = dataclasses.asdict(manifest.model)
    return {"file": str(path), "format": "engine", **built, **model, "sha256": manifest.engine_sha256}


def _about_package(path: Path, arch: str | None) -> dict[str, Any]:
    manifest = read_package_manifest(path)
    check_agreement(path, manifest.model, arch, None)
    read_package(path, manifest)  # verifies the hash
    built = {
        "flavour": manifest.flavour,
        "built_by": f"PyTorch {manifest.torch}",
        "targets": ["cpu" if manifest.device == "cpu" else f"sm{manifest.capability[0]}{manifest.capability[1]}"],
        "sizes": f"{manifest.size[0]}x{manifest.size[1]}",
    }
    model = dataclasses.asdict(manifest.model)
    return {"file": str(path), "format": "package", **built, **model, "sha256": manifest.package_sha256}


def _about_checkpoint(path: Path, arch: str | None) -> dict[str, Any]:
    require_torch("reading a checkpoint")
    from flashrib.model.checkpoint import describe_checkpoint

    about = describe_checkpoint(path, arch)
    precision = about.pop("dtype").replace("bfloat", "bf").replace("float", "fp")
    return {"file": str(path), "format": "checkpoint", **about, "precision": precision, "sha256": about["sha256"]}


def _text(name: str, value: Any) -> str:
    """A value as the table shows it."""
    match value:
        case None if name == "calibration":
            return "none"
        case None:
            return "unknown: pass --arch" if name != "scale" else "unknown: the shapes of x2 and x3 are alike"
        case bool():
            return "yes" if value else "no"
        case dict():
            return _calibration(value)
        case int() if name == "parameters":
            return f"{value:,}"
        case int() if name == "scale":
            return f"x{value}"
        case list() | tuple() if name == "windows":
            return ", ".join(f"{rows}x{columns}" for rows, columns in value) + " (rows x columns)"
        case list() | tuple():
            return ", ".join(map(str, value)) or "none"
    return str(value)


def _calibration(value: dict[str, Any]) -> str:
    """What a quantized file says about its calibration, in one line; as it stands where it says it in another way."""
    try:
        return (
            f"{len(value['layers'])} layers, {100 * value['share_of_macs']:.1f} % of the MACs outside of attention, the rest"
            f" {value['rest']}; {value['method']}, loss {value['loss_db']:.4f} dB of a budget of {value['budget_db']:g} dB on"
            f" {value['held_out']} held-out tiles, pictures sha256 {value['pictures_sha256'][:12]}"
        )
    except (KeyError, TypeError, ValueError):
        return str(value)
