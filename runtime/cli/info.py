"""The command `flashrib info`."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.bundled import is_bundled, or_bundled_weights
from flashrib.runtime.cli.options import add_checkpoint_options, bundled_names, tile_sides
from flashrib.runtime.cli.output import print_json, print_table
from flashrib.runtime.errors import UsageError
from flashrib.runtime.jobs.folders import made_folder
from flashrib.runtime.pictures.files import write_picture
from flashrib.runtime.pictures.picture import Picture
from flashrib.runtime.sessions.providers import PROVIDERS
from flashrib.runtime.sessions.report import describe_devices
from flashrib.runtime.sessions.table import describe_model
from flashrib.runtime.sessions.torch_plain import require_torch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        type=Path,
        help=f"an ONNX file, an engine, a package or a checkpoint, or a bundled model: {bundled_names()}",
    )
    add_checkpoint_options(parser, "; for any other model a check")
    parser.add_argument(
        "--macs",
        metavar="HxW",
        type=tile_sides,
        help="count the multiply-adds for an input of this size as well; needs PyTorch, and a preset or a checkpoint",
    )
    parser.add_argument(
        "--pictures",
        metavar="DIR",
        type=Path,
        help="draw what the heads of every layer see: which pairs of tokens (Fibottention), or the position bias that they have"
        " learned (checkpoints with RIB); needs PyTorch",
    )
    parser.add_argument(
        "--devices",
        action="store_true",
        help="say what this machine has to run models with, and what each session lacks",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    """Say what a model file is.

    Architecture, scale, windows, ranks, heads, parameters, alignment and minimum
    side (in pixels of the input), precision and hash; of an engine or a package also
    what it was built for. Only checkpoints need PyTorch for it.

    examples:
      flashrib info
      flashrib info --devices
      flashrib info SSTlight_DFLIP_X2.pth --json
    """
    if arguments.devices:
        return _devices(arguments)
    about = describe_model(arguments.model, arguments.arch, arguments.scale, arguments.key)
    if arguments.macs is not None:
        about = {**about, "macs": _macs(arguments, about)}
    if arguments.pictures is not None:
        about = {**about, "pictures": _draw(arguments, about)}
    if arguments.json:
        print_json(about)
    else:
        print_table([(name.replace("_", " "), _text(name, value)) for name, value in about.items()])
    return 0


def _macs(arguments: argparse.Namespace, about: Mapping[str, Any]) -> dict[str, Any]:
    """Multiply-adds of the network that a file holds."""
    require_torch("counting multiply-adds")
    from flashrib.model import load_model, preset, presets
    from flashrib.model.macs import count_macs

    name = about.get("architecture")
    if name in presets():
        config = preset(name, about.get("scale") or None)
    elif about.get("format") == "checkpoint":
        config = load_model(arguments.model, arguments.arch, key=arguments.key).config
    else:
        raise UsageError(f"--macs: {name!r} is no preset: pass the checkpoint that the file was made from")
    height, width = arguments.macs if isinstance(arguments.macs, tuple) else (arguments.macs,) * 2
    return {"size": f"{height}x{width}", **count_macs(config, height, width)}


def _draw(arguments: argparse.Namespace, about: Mapping[str, Any]) -> list[str]:
    """Write the pictures of what attention sees, and return their names."""
    require_torch("drawing attention")
    from flashrib.model import bias_maps, load_model
    from flashrib.model.architectures.registry import architecture_named, architecture_of

    name = about.get("architecture")
    files: list[tuple[str, Any]] = []
    if is_bundled(arguments.model) or about.get("format", "checkpoint") == "checkpoint":
        network = load_model(or_bundled_weights(arguments.model), arguments.arch, key=arguments.key)
        row = architecture_of(network.config)
        files += row.pictures(network.config) if row.pictures is not None else bias_maps.pictures(network)
    else:
        row = architecture_named(str(name))
        if row.pictures is not None and row.config_of_facts is not None:
            files += row.pictures(row.config_of_facts(about))
    if not files:
        raise UsageError(
            f"--pictures: nothing of the attention of {name} can be drawn from this file: pass a Fibottention model, or the checkpoint"
            " of a network with RIB"
        )
    written = []
    with made_folder(arguments.pictures):
        for file, pixels in files:
            write_picture(arguments.pictures / file, Picture(pixels))
            written.append(str(arguments.pictures / file))
    return written


def _devices(arguments: argparse.Namespace) -> int:
    """Say what this machine has."""
    if any(value is not None for value in (arguments.model, arguments.arch, arguments.scale, arguments.key)):
        raise UsageError("--devices: is about this machine and takes no model: leave one of the two out")
    found = describe_devices()
    if arguments.json:
        print_json(found)
        return 0
    gpu = found["gpu"]
    rows = [("cpu", found["cpu"]), ("gpu", gpu if isinstance(gpu, str) else f"{gpu['name']}, {gpu['capability']}")]
    rows += [("package", f"{name} {version}") for name, version in found["packages"].items()]
    rows += [
        (f"provider {name}", f"{'yes' if there else 'no'}: {PROVIDERS[name].hardware}; {PROVIDERS[name].package}")
        for name, there in found["providers"].items()
    ]
    rows += [(f"session {name}", f"needs {lacks}" if lacks else "ready") for name, lacks in found["sessions"].items()]
    print_table(rows)
    return 0


def _text(name: str, value: Any) -> str:
    """A value as the table shows it."""
    match value:
        case None if name == "calibration":
            return "none"
        case None:
            return "unknown: pass --arch" if name != "scale" else "unknown: the shapes of x2 and x3 are alike"
        case bool():
            return "yes" if value else "no"
        case dict() if name == "macs":
            size, *counts = value.items()
            return f"{size[1]}: " + ", ".join(f"{what} {count / 1e9:,.1f} G" for what, count in counts)
        case dict() if name == "calibration":
            return _calibration(value)
        case dict():
            return json.dumps(value)
        case int() if name == "parameters":
            return f"{value:,}" if value else "unknown"
        case int() if name == "scale":
            return f"x{value}"
        case list() | tuple() if name == "windows" and value:
            return ", ".join(f"{rows}x{columns}" for rows, columns in value) + " (rows x columns)"
        case list() | tuple() if name == "fixed_size":
            return "x".join(map(str, value))
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
