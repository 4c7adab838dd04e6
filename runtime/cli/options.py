"""Options that several commands share, and how their values are read."""

import argparse
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from flashrib.runtime.artifacts.bundled import BUNDLED, DEFAULT
from flashrib.runtime.errors import UsageError
from flashrib.runtime.noise import MOST_SEEDS
from flashrib.runtime.sessions.ensemble import Ensemble
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.providers import PROVIDERS
from flashrib.runtime.sessions.spec import SessionSpec
from flashrib.runtime.sessions.table import SESSIONS, choose_session, session_names
from flashrib.runtime.tiling.upscale import DEFAULT_HALO, DEFAULT_TILE


def bundled_names() -> str:
    """The bundled models, for help texts."""
    return ", ".join(
        f"{row.name} ({row.about}{'; the default' if row.name == DEFAULT else ''})" for row in BUNDLED.values()
    )


def add_model_options(parser: argparse.ArgumentParser, bundled: bool = True) -> None:
    """Add what decides the model and the session.

    Args:
        parser: of the command.
        bundled: the command's task is that of the bundled models.
    """
    names = f"a bundled model, {bundled_names()}; or " if bundled else ""
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model",
        metavar="MODEL",
        type=Path,
        help=f"{names}an ONNX file, an engine or a package made by flashrib, or a checkpoint (.pth, .safetensors)",
    )
    add_checkpoint_options(group, "; for any other model a check")
    group.add_argument(
        "--session",
        choices=session_names(),
        default="auto",
        help="what runs the model; auto: ONNX Runtime for ONNX files, PyTorch for checkpoints, TensorRT for engines,"
        " AOTInductor for packages; for a bundled model the fastest that works here",
    )
    group.add_argument(
        "--device",
        metavar="DEVICE",
        default="auto",
        help="where the model runs: cpu, cuda, cuda:1, or with PyTorch several GPUs that share the tiles, cuda:0,cuda:1; auto"
        " (default): the first CUDA GPU if there is one and the packages for it",
    )
    group.add_argument(
        "--provider",
        metavar="NAME",
        choices=tuple(PROVIDERS),
        help=f"execution provider of ONNX Runtime: {', '.join(PROVIDERS)}; default: by --device",
    )
    group.add_argument(
        "--provider-option",
        dest="provider_options",
        metavar="KEY=VALUE",
        type=key_and_value,
        action="append",
        default=[],
        help="an option of the provider, such as gpu_mem_limit=4000000000; may be given again",
    )
    group.add_argument(
        "--precision",
        choices=("auto", *SESSIONS["torch"].precisions),
        default="auto",
        help="what PyTorch computes in; auto: fp16 on a GPU, fp32 on the CPU, which has nothing else",
    )
    group.add_argument(
        "--threads", metavar="N", type=whole_number(1, 1024), help="threads on the CPU; default: all cores"
    )
    group.add_argument(
        "--cuda-graph", action="store_true", help="launch an engine as one CUDA graph: less work for the CPU per tile"
    )


def add_checkpoint_options(parser: argparse._ActionsContainer, otherwise: str = "") -> None:
    """Add what a checkpoint may not say itself; `otherwise` says what --scale does for other files."""
    parser.add_argument(
        "--arch",
        metavar="NAME",
        help="architecture of a checkpoint, or of an ONNX file whose metadata are gone, that does not say it itself, such as sst-plus",
    )
    parser.add_argument(
        "--scale",
        metavar="N",
        type=whole_number(1),
        help=f"magnification of a file that does not say it itself{otherwise}",
    )
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="where in a checkpoint the network is, if it is not found, or another one is meant, such as state_dict.generator",
    )


def add_noise_options(parser: argparse._ActionsContainer) -> None:
    """Add where the noise of a network comes from that takes some; `noise_source` reads them."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--noise-seed",
        metavar="N",
        type=whole_number(0, MOST_SEEDS - 1),
        help="SST-Real: put the noise of this seed inside, so that the picture is the one input",
    )
    group.add_argument(
        "--no-noise",
        action="store_true",
        help="SST-Real: leave the noise out, for a smoother result from the picture alone",
    )


def noise_source(arguments: argparse.Namespace) -> str | int:
    """Return what `flashrib.model.network.Network.with_noise` takes."""
    if arguments.no_noise:
        return "none"
    return "input" if arguments.noise_seed is None else int(arguments.noise_seed)


def add_tile_options(parser: argparse.ArgumentParser, default: str = f"{DEFAULT_TILE}") -> None:
    """Add what decides the tiles; `default` says what happens without --tile."""
    group = parser.add_argument_group("tiles")
    group.add_argument(
        "--tile",
        metavar="N|HxW",
        type=tile_sides,
        help=f"pixels of the input that a tile owns, as a side or height x width; default: {default}",
    )
    group.add_argument(
        "--halo",
        metavar="N",
        type=whole_number(0),
        help=f"pixels of the input that a tile reads beyond its own on each side; default: {DEFAULT_HALO}",
    )


def add_ensemble_option(parser: argparse.ArgumentParser) -> None:
    """Add --ensemble."""
    parser.add_argument(
        "--ensemble",
        action="store_true",
        help="the mean over the picture and its seven mirror images, turned back: eight times the work, a little nearer to the truth",
    )


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add what sends tiles to other machines."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        nargs="?",
        const="auto",
        help="run the tiles on a Ray cluster: HOST:PORT, the one that this machine belongs to (auto, if no address is given), or"
        " one on this machine (local)",
    )
    group.add_argument(
        "--cluster-workers",
        metavar="N",
        type=whole_number(1),
        help="processes of the cluster; default: one for each GPU with --device cuda, otherwise one for each machine",
    )


def open_chosen(arguments: argparse.Namespace, task: str | None = "upscale") -> tuple[Session, Path, str]:
    """Open the session that the options ask for; returns it, its model file and its kind.

    Args:
        arguments: with the options of `add_model_options`.
        task: "upscale" for anything that gives pictures, "classify"; None: any.

    Raises:
        UsageError: the model is for another task.
        FlashribError: as `SessionSpec.open`.
    """
    session, path, kind = _open(arguments)
    if getattr(arguments, "ensemble", False):
        try:
            session = Ensemble(session)
        except UsageError as error:
            session.close()
            raise UsageError(f"--ensemble: {path}: {error}") from error
    if task is not None and (session.info.task == "classify") != (task == "classify"):
        session.close()
        if task == "classify":
            raise UsageError(f"{path}: gives pictures and no classes: use flashrib upscale")
        raise UsageError(f"{path}: classifies pictures and cannot upscale them: use flashrib classify")
    return session, path, kind


def _open(arguments: argparse.Namespace) -> tuple[Session, Path, str]:
    spec = SessionSpec(
        arguments.model,
        arguments.session,
        arguments.arch,
        arguments.scale,
        arguments.device,
        arguments.threads,
        arguments.cuda_graph,
        arguments.precision,
        arguments.provider,
        tuple(arguments.provider_options),
        key=arguments.key,
    )
    path, kind = choose_session(spec.model, spec.kind, spec.may_use_gpus)
    spec = dataclasses.replace(spec, model=path, kind=kind)
    if (address := getattr(arguments, "cluster", None)) is not None:
        from flashrib.runtime.sessions.cluster import ClusterOptions, ClusterSession

        return ClusterSession(spec, ClusterOptions(address, arguments.cluster_workers)), path, kind
    return spec.open(), path, kind


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers in a range."""
    wanted = f"a whole number from {least} to {most}" if most is not None else f"a whole number, at least {least}"

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= (most or int(text)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return int(text)

    return read


def key_and_value(text: str) -> tuple[str, str]:
    """Read "key=value"."""
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    return key, value


def positive_number(text: str) -> float:
    """Read a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def tile_sides(text: str) -> int | tuple[int, int]:
    """Read "256" or "256x320"."""
    sides = [int(side) for side in text.split("x")] if re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})?", text) else [0]
    if min(sides) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of pixels such as 256 nor height x width such as 256x320"
        )
    return (sides[0], sides[1]) if len(sides) == 2 else sides[0]
