"""The command `flashrib verify`."""

import argparse
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.bundled import or_bundled_model, or_bundled_weights
from flashrib.runtime.cli.options import add_checkpoint_options, whole_number
from flashrib.runtime.cli.output import PictureBar, print_error, print_json, print_line
from flashrib.runtime.errors import FlashribError, MissingPackageError, UsageError
from flashrib.runtime.quality.parity import Artifact, Parity, psnr_drop, verify
from flashrib.runtime.quality.parity_expected import noise_for, noise_source
from flashrib.runtime.quality.parity_inputs import DEFAULT_SIDE, SEED
from flashrib.runtime.quality.parity_report import figure, version, write_report
from flashrib.runtime.quality.polygraphy_files import require_polygraphy, write_polygraphy_files

MOST_SHOWN = 6  # pictures in the report; each takes some 100 KB per artifact


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("reference", metavar="REFERENCE", type=Path, help="what is right: a checkpoint or an ONNX file")
    parser.add_argument("artifacts", metavar="ARTIFACT", nargs="+", type=Path, help="what is compared with it")
    parser.add_argument(
        "--pictures",
        metavar="DIR",
        type=Path,
        help="add the pictures of this folder; NAME_LR.* beside NAME_HR.* are compared with their originals too",
    )
    parser.add_argument(
        "--side",
        metavar="N",
        type=whole_number(1, 4096),
        default=DEFAULT_SIDE,
        help=f"cut larger pictures to this many pixels a side, out of their middle; default: {DEFAULT_SIDE}",
    )
    parser.add_argument(
        "--seed", metavar="N", type=whole_number(0), default=SEED, help=f"of the random inputs; default: {SEED}"
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="write a page with pictures, a .html file")
    parser.add_argument(
        "--polygraphy",
        metavar="DIR",
        type=Path,
        help="write inputs, the reference's outputs and a comparison that `polygraphy run` takes, and the command, into this folder;"
        " needs the extra [polygraphy]",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--bisect",
        action="store_true",
        help="name the first layer that diverges, for every artifact that fails; needs the extra [export]",
    )
    add_checkpoint_options(parser)
    parser.add_argument(
        "--threads", metavar="N", type=whole_number(1, 1024), help="threads on the CPU; default: all cores"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prove that model files compute what a reference computes.

    Runs all on the same inputs: random values, a test chart, black, white, noise,
    a checkerboard of single pixels, odd sizes, and pictures. How far an artifact
    may be off depends on its precision; NaN and infinity are failures. Exits 1 if
    an artifact failed.

    examples:
      flashrib verify SSTlight_X2.pth 2x_SSTlight_fp32.onnx 2x_SSTlight_fp16.onnx
      flashrib verify SSTlight_X2.pth model.onnx --pictures Set5/ --report parity.html
      flashrib verify SSTlight_X2.pth suspicious.onnx --bisect
      flashrib verify SSTlight_X2.pth model.onnx --polygraphy out/ && out/run.sh
    """
    report = arguments.report
    if report is not None and report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {report}: the report is a page, so its name must end in .html")
    if report is not None and not report.parent.is_dir():
        raise UsageError(f"--report {report}: there is no folder {report.parent}")
    if arguments.polygraphy is not None:
        require_polygraphy()
        if report is not None:
            raise UsageError("--polygraphy: keeps all outputs, of which --report shows a few: leave one of the two out")
    with PictureBar(1) as bar:
        bar.start("verify")
        parity = verify(
            or_bundled_weights(arguments.reference),
            [or_bundled_model(artifact) for artifact in arguments.artifacts],
            pictures=arguments.pictures,
            arch=arguments.arch,
            scale=arguments.scale,
            key=arguments.key,
            side=arguments.side,
            seed=arguments.seed,
            threads=arguments.threads,
            most_shown=sys.maxsize if arguments.polygraphy else MOST_SHOWN if report is not None else 0,
            progress=bar.report,
        )
    if arguments.bisect:
        for artifact in parity.artifacts:
            artifact.layer = _first_layer(artifact, parity, arguments)
    if report is not None:
        write_report(parity, report)
    if arguments.polygraphy is not None:
        script = write_polygraphy_files(parity, arguments.polygraphy)
        if not arguments.json:
            print_line(f"for Polygraphy: {script}")
    if arguments.json:
        print_json(_document(parity))
    else:
        _print_tables(parity)
    for artifact in parity.artifacts:
        if artifact.failure is not None:
            layer = f"; {artifact.layer}" if artifact.layer else ""
            print_error(f"{artifact.file}: {artifact.failure}{layer}")
    return 0 if parity.passed else 1


def _first_layer(artifact: Artifact, parity: Parity, arguments: argparse.Namespace) -> str | None:
    """Say which layer diverges first, on the input with the largest error; None where the artifact passed or did not run."""
    if artifact.failure is None or artifact.worst is None or artifact.bound is None:
        return None
    try:
        from flashrib.export.bisect import bisect
    except ModuleNotFoundError as error:
        raise MissingPackageError(error.name or "onnx", "--bisect", "export") from error
    batch = parity.cases[artifact.worst.case].batch
    assert parity.reference.info is not None
    about = parity.reference.info, artifact.info or parity.reference.info
    noises = [noise_for(info, batch, noise_source(*about), parity.seed) for info in about if info.noise]
    try:
        first, compared = bisect(
            parity.reference.file,
            artifact.file,
            batch,
            artifact.bound.layer,
            arch=arguments.arch,
            scale=arguments.scale,
            key=arguments.key,
            noise=noises[0] if noises else None,
        )
    except FlashribError as error:
        return f"no layer can be named: {error}"
    if first is not None:
        return f"first divergence: {first}"
    return (
        f"no single layer differs by more than {artifact.bound.layer:.0e}; the largest of {len(compared)}:"
        f" {max(compared, key=lambda divergence: divergence.rms_ratio)}"
    )


def _print_tables(parity: Parity) -> None:
    reference = parity.reference
    print_line(
        f"reference  {reference.file} ({reference.precision}, {reference.kind}, x{parity.scale}), seed {parity.seed}"
    )
    for artifact in parity.artifacts:
        verdict = "passed" if artifact.failure is None else "FAILED"
        about = f" ({artifact.precision}, {artifact.kind}; {artifact.bound})" if artifact.bound is not None else ""
        print_line("")
        print_line(f"{verdict}  {artifact.file}{about}")
        if not artifact.comparisons:
            continue
        truths = any(c.psnr_truth is not None for c in artifact.comparisons)
        width = max(len("input"), *(len(c.case) for c in artifact.comparisons))
        heads = ["size", "max abs", "RMS ratio", "PSNR"] + ["to original", "reference"] * truths
        print_line(_row("input", heads, width))
        for c in artifact.comparisons:
            cells = [
                f"{c.width}x{c.height}",
                figure(c.max_abs, ".2e"),
                figure(c.rms_ratio, ".2e"),
                figure(c.psnr, ".2f"),
            ]
            if not c.finite:
                cells[1] = "NaN or inf"
            if truths:
                cells += [figure(c.psnr_truth, ".3f"), figure(c.psnr_reference, ".3f")]
            print_line(_row(c.case, cells, width) + ("" if c.within else "  over"))
        drop = psnr_drop(artifact)
        if drop is not None:
            print_line(f"loss of PSNR to the originals against the reference: {drop:.4f} dB on average")


def _row(name: str, cells: list[str], width: int) -> str:
    return f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells)


def _document(parity: Parity) -> dict[str, Any]:
    artifacts = []
    for artifact in parity.artifacts:
        bound = artifact.bound
        about = _file(artifact) | {
            "passed": artifact.failure is None,
            "failure": artifact.failure,
            "layer": artifact.layer,
        }
        about["bound"] = dataclasses.asdict(bound) if bound is not None else None
        about["psnr_drop"] = _number(psnr_drop(artifact))
        about["inputs"] = [
            {name: _number(value) for name, value in dataclasses.asdict(comparison).items()}
            for comparison in artifact.comparisons
        ]
        artifacts.append(about)
    return {
        "passed": parity.passed,
        "version": version("flashrib"),
        "scale": parity.scale,
        "seed": parity.seed,
        "reference": _file(parity.reference),
        "artifacts": artifacts,
    }


def _file(artifact: Artifact) -> dict[str, Any]:
    return {
        "file": str(artifact.file),
        "session": artifact.kind or None,
        "precision": artifact.precision or None,
        "sha256": artifact.sha256 or None,
    }


def _number(value: Any) -> Any:
    """JSON has neither infinity (the PSNR of equal outputs) nor NaN: null stands for both."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
