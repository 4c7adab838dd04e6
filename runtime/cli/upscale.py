"""The command `flashrib upscale`."""

import argparse
import contextlib
import dataclasses
import re
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.cli.options import (
    add_cluster_options,
    add_model_options,
    add_tile_options,
    open_chosen,
    whole_number,
)
from flashrib.runtime.cli.output import PictureBar, print_error, print_json, print_line
from flashrib.runtime.errors import FlashribError
from flashrib.runtime.jobs.folders import MadeFolders
from flashrib.runtime.jobs.journal import journal_exists, opened, shard
from flashrib.runtime.jobs.plan import Job, plan_jobs
from flashrib.runtime.jobs.run import Done, Options, run_jobs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "inputs", metavar="IN", nargs="+", help="pictures (PNG, JPEG, WebP, TIFF, BMP), folders of them, or patterns"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the file to write, or a folder, which is made if it is missing",
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="take the pictures below the folders as well")
    parser.add_argument("--overwrite", action="store_true", help="replace results that exist")
    parser.add_argument(
        "--quality",
        metavar="N",
        type=whole_number(1, 100),
        help="1 to 100 for JPEG (default: 95) and WebP (default: lossless)",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        type=part_of,
        help="do the I-th of N parts of the pictures, so that N machines that share a folder do them all, each once",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document about all pictures")
    add_model_options(parser)
    add_tile_options(parser)
    add_cluster_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Upscale pictures.

    One picture is written to the file OUT; several, or the pictures of a folder,
    keep their names and go into the folder OUT. A picture that cannot be upscaled
    is reported and does not stop the others; the same for a result that exists,
    unless --overwrite is given. A run that was stopped or killed goes on when the
    same command is given again: pictures that are done are not done again. Depth, transparency, colour profile and EXIF data
    are kept as far as the format of the result allows.

    examples:
      flashrib upscale photo.jpg -o large.png
      flashrib upscale holidays/ -r -o large/ --tile 256 --json
    """
    jobs = plan_jobs(arguments.inputs, arguments.output, recursive=arguments.recursive, overwrite=arguments.overwrite)
    number, of = arguments.shard or (1, 1)
    mine = shard([job.source for job in jobs], number, of)
    jobs = [job for job, is_mine in zip(jobs, mine, strict=True) if is_mine]
    folder = Path(arguments.output) if any(job.target != Path(arguments.output) for job in jobs) else None
    part = f"-{number}of{of}" if of > 1 else ""
    if all(job.error for job in jobs) and not (folder and journal_exists(folder, part)):
        # No model is needed to say so.
        results = [_report_failure(job, job.error) for job in jobs]
        model, kind = None, None
    else:
        results, model, kind = _run(arguments, jobs, folder, part)
    failed = sum("error" in result for result in results)
    earlier = sum(bool(result.get("earlier")) for result in results)
    if arguments.json:
        print_json({"model": model and str(model), "session": kind, "failed": failed, "pictures": results})
    elif len(jobs) != 1:
        before = f", {earlier} of them by an earlier run" if earlier else ""
        print_line(
            f"{len(jobs) - failed} of {len(jobs)} pictures upscaled{before}" + (f", {failed} failed" if failed else "")
        )
    return 1 if failed else 0


def _run(
    arguments: argparse.Namespace, jobs: list[Job], folder: Path | None, part: str
) -> tuple[list[dict[str, Any]], Path, str]:
    """Upscale pictures; with a folder for the results its journal is kept. Returns what --json says, the model and the session."""
    results: list[dict[str, Any]] = []
    session, model, kind = open_chosen(arguments)
    options = Options(arguments.tile, arguments.halo, arguments.overwrite, arguments.quality)
    with session, MadeFolders() as folders, contextlib.ExitStack() as stack:
        journal = None
        if folder is not None:
            folders.make(folder)
            identity = {"model": sha256_of(model), "precision": session.info.precision, **dataclasses.asdict(options)}
            journal = stack.enter_context(opened(folder, identity, part))
        bar = stack.enter_context(PictureBar(len(jobs)))
        outcomes = run_jobs(
            session,
            jobs,
            options,
            started=lambda job: bar.start(job.source.name),
            progress=bar.report,
            journal=journal,
        )
        with contextlib.closing(outcomes):
            for job, outcome in zip(jobs, outcomes, strict=True):
                if isinstance(outcome, FlashribError):
                    results.append(_report_failure(job, outcome))
                else:
                    results.append(_values(outcome) | {"session": kind})
                    if not (arguments.json or outcome.earlier):
                        print_line(_line(outcome))
                bar.finish()
        if journal is not None and not any("error" in result for result in results):
            journal.complete()
    return results, model, kind


def part_of(text: str) -> tuple[int, int]:
    """Read "2/4"."""
    if not re.fullmatch(r"[0-9]{1,5}/[0-9]{1,5}", text) or not 1 <= int(text.split("/")[0]) <= int(text.split("/")[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 1/4, 2/4, 3/4 or 4/4")
    number, of = map(int, text.split("/"))
    return number, of


def _values(done: Done) -> dict[str, Any]:
    """What --json says about a picture."""
    figures = dataclasses.asdict(done)
    del figures["source"], figures["target"]
    return {"input": str(done.source), "output": str(done.target), **figures, "seconds": round(done.seconds, 3)}


def _line(done: Done) -> str:
    return (
        f"{done.source} ({done.width}x{done.height}) -> {done.target}"
        f" ({done.output_width}x{done.output_height}), {done.seconds:.1f} s"
    )


def _report_failure(job: Job, error: FlashribError | None) -> dict[str, Any]:
    print_error(error)
    return {"input": str(job.source), "output": str(job.target), "error": str(error)}
