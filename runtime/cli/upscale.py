"""The command `flashrib upscale`."""

import argparse
import contextlib
import dataclasses
from typing import Any

from flashrib.runtime.cli.options import (
    add_cluster_options,
    add_model_options,
    add_tile_options,
    open_chosen,
    whole_number,
)
from flashrib.runtime.cli.output import PictureBar, print_error, print_json, print_line
from flashrib.runtime.errors import FlashribError
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
    parser.add_argument("--json", action="store_true", help="print one JSON document about all pictures")
    add_model_options(parser)
    add_tile_options(parser)
    add_cluster_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Upscale pictures.

    One picture is written to the file OUT; several, or the pictures of a folder,
    keep their names and go into the folder OUT. A picture that cannot be upscaled
    is reported and does not stop the others; the same for a result that exists,
    unless --overwrite is given. Depth, transparency, colour profile and EXIF data
    are kept as far as the format of the result allows.

    examples:
      flashrib upscale photo.jpg -o large.png
      flashrib upscale holidays/ -r -o large/ --tile 256 --json
    """
    jobs = plan_jobs(arguments.inputs, arguments.output, recursive=arguments.recursive, overwrite=arguments.overwrite)
    results: list[dict[str, Any]] = []
    if all(job.error for job in jobs):
        # No model is needed to say so.
        for job in jobs:
            results.append(_report_failure(job, job.error))
        model, kind = None, None
    else:
        session, model, kind = open_chosen(arguments)
        options = Options(arguments.tile, arguments.halo, arguments.overwrite, arguments.quality)
        with session, PictureBar(len(jobs)) as bar:
            outcomes = run_jobs(
                session, jobs, options, started=lambda job: bar.start(job.source.name), progress=bar.report
            )
            with contextlib.closing(outcomes):
                for job, outcome in zip(jobs, outcomes, strict=True):
                    if isinstance(outcome, FlashribError):
                        results.append(_report_failure(job, outcome))
                    else:
                        results.append(_values(outcome) | {"session": kind})
                        if not arguments.json:
                            print_line(_line(outcome))
                    bar.finish()

    failed = sum("error" in result for result in results)
    if arguments.json:
        print_json({"model": model and str(model), "session": kind, "failed": failed, "pictures": results})
    elif len(jobs) > 1:
        print_line(f"{len(jobs) - failed} of {len(jobs)} pictures upscaled" + (f", {failed} failed" if failed else ""))
    return 1 if failed else 0


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
