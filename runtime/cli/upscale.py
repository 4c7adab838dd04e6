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
    add_ensemble_option,
    add_model_options,
    add_tile_options,
    open_chosen,
    whole_number,
)
from flashrib.runtime.cli.output import PictureBar, print_error, print_json, print_line, print_note
from flashrib.runtime.errors import FlashribError, UsageError
from flashrib.runtime.jobs.folders import MadeFolders
from flashrib.runtime.jobs.journal import journal_exists, opened, shard
from flashrib.runtime.jobs.plan import STREAM, Job, Naming, is_stream, plan_jobs
from flashrib.runtime.jobs.run import Done, Options, read_early, run_jobs, within_memory
from flashrib.runtime.pictures.formats import WRITTEN_SUFFIXES, format_of, names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "inputs",
        metavar="IN",
        nargs="+",
        help=f"pictures ({names(last=', ')}), folders of them, patterns, or - for standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the file to write, a folder, which is made if it is missing, or - for standard output",
    )
    parser.add_argument("-r", "--recursive", action="store_true", help="take the pictures below the folders as well")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist")
    existing.add_argument("--skip-existing", action="store_true", help="leave pictures alone whose result exists")
    parser.add_argument(
        "--format",
        metavar="EXT",
        type=extension,
        help="format of the results in a folder, such as jpg, or of standard output; default: that of each picture, png for -",
    )
    parser.add_argument(
        "--suffix", metavar="TEXT", type=name_part, default="", help="put behind the names in a folder, such as _x2"
    )
    parser.add_argument(
        "--quality",
        metavar="N",
        type=whole_number(1, 100),
        help="1 to 100 for JPEG (default: 95), AVIF (90), WebP and JPEG XL (lossless)",
    )
    parser.add_argument(
        "--png-level",
        metavar="N",
        type=whole_number(0, 9),
        help="0 (large, fast) to 9 (small, slow) for PNG; default: 1",
    )
    parser.add_argument(
        "--pyramid",
        action="store_true",
        help="write TIFFs with smaller levels, for viewers that zoom; OME-TIFF where the name ends in .ome.tif",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        type=size_in_bytes,
        help="memory that this process may take in all, such as 800M or 4G: decides the tiles on the CPU, the height of bands and how"
        " many pictures are held; default: tiles as below, large pictures in bands of up to 1 GB",
    )
    parser.add_argument(
        "--strip",
        action="store_true",
        help="write pixels and colour profile alone, no EXIF, XMP, texts, comments, density",
    )
    parser.add_argument(
        "--max-pixels",
        metavar="N",
        type=whole_number(1, 2**31 - 1),
        help="refuse pictures of more pixels; default: what fits into free memory, at most 2^30",
    )
    parser.add_argument(
        "--allow-truncated", action="store_true", help="take what there is of pictures that are damaged or cut off"
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        type=part_of,
        help="do the I-th of N parts of the pictures, so that N machines that share a folder do them all, each once",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=whole_number(0),
        help="which noise a model takes that takes some, such as SST-Real (default: 0); the same seed makes the same result",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document about all pictures")
    add_ensemble_option(parser)
    add_model_options(parser)
    add_tile_options(parser)
    add_cluster_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Upscale pictures.

    One picture is written to the file OUT; several, or the pictures of a folder,
    keep their names and go into the folder OUT. A picture that cannot be upscaled
    is reported and does not stop the others; the same for a result that exists,
    unless --overwrite is given. A run that was stopped or killed goes on when the
    same command is given again: pictures that are done are not done again.
    Depth, transparency, colours and what else belongs to a picture are kept as far
    as the format of the result allows; what is not kept is said.

    examples:
      flashrib upscale photo.jpg -o large.png
      flashrib upscale holidays/ -r -o large/ --tile 256 --json
      flashrib upscale - -o - --format jpg < photo.jpg > large.jpg
    """
    if arguments.json and arguments.output in (STREAM, "/dev/stdout"):
        raise UsageError("--json and -o - both write to standard output")
    try:
        planned = plan_jobs(
            arguments.inputs,
            arguments.output,
            recursive=arguments.recursive,
            overwrite=arguments.overwrite,
            skip_existing=arguments.skip_existing,
            naming=Naming(arguments.suffix, None if is_stream(arguments.output) else arguments.format),
            note=print_note,
        )
    except FlashribError as error:
        if arguments.json:
            print_json({"model": None, "session": None, "failed": None, "error": str(error), "pictures": []})
        raise
    if arguments.pyramid:
        _check_pyramids(planned)
    number, of = arguments.shard or (1, 1)
    mine = shard([job.source for job in planned], number, of)
    planned = [job for job, is_mine in zip(planned, mine, strict=True) if is_mine]
    skipped = [job for job in planned if job.skipped]
    jobs = [job for job in planned if not job.skipped]
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
        results += [{"input": str(job.source), "output": str(job.target), "skipped": True} for job in skipped]
        print_json({"model": model and str(model), "session": kind, "failed": failed, "pictures": results})
    elif len(planned) != 1:
        before = f", {earlier} of them by an earlier run" if earlier else ""
        print_line(
            f"{len(jobs) - failed} of {len(planned)} pictures upscaled{before}"
            + (f", {len(skipped)} skipped" if skipped else "")
            + (f", {failed} failed" if failed else "")
        )
    return 1 if failed else 0


def _run(
    arguments: argparse.Namespace, jobs: list[Job], folder: Path | None, part: str
) -> tuple[list[dict[str, Any]], Path, str]:
    """Upscale pictures; with a folder for the results its journal is kept. Returns what --json says, the model and the session."""
    results: list[dict[str, Any]] = []
    options = Options(
        arguments.tile,
        arguments.halo,
        arguments.overwrite,
        arguments.quality,
        png_level=arguments.png_level,
        pyramid=arguments.pyramid,
        strip=arguments.strip,
        max_pixels=arguments.max_pixels,
        allow_truncated=arguments.allow_truncated,
        stream_extension=arguments.format or ".png",
    )
    first = read_early(jobs, options) if arguments.memory is None else None
    session, model, kind = open_chosen(arguments)
    if session.info.noise:
        session.seed = arguments.seed or 0
    elif arguments.seed is not None:
        session.close()
        raise UsageError(f"--seed {arguments.seed}: {model} takes no noise: leave it out")
    identity = options.identity  # as asked for: what memory makes of it may differ from run to run
    if arguments.memory is not None:
        try:
            options = within_memory(session, options, arguments.memory)
        except BaseException:
            session.close()
            raise
    into_stdout = str(jobs[0].target) in (STREAM, "/dev/stdout")
    devices = getattr(session, "devices", ("cpu",))
    if devices != ("cpu",) and not (arguments.json or into_stdout):
        print_line(f"{model.name} by the session {kind} on {', '.join(devices)}")
    with session, MadeFolders() as folders, contextlib.ExitStack() as stack:
        journal = None
        if folder is not None:
            folders.make(folder)
            identity |= {"model": sha256_of(model), "precision": session.info.precision}
            identity |= {"ensemble": True} if arguments.ensemble else {}
            identity |= {"seed": session.seed} if session.info.noise else {}
            journal = stack.enter_context(opened(folder, identity, part))
        bar = stack.enter_context(PictureBar(len(jobs)))
        outcomes = run_jobs(
            session,
            jobs,
            options,
            started=lambda job: bar.start(job.source.name),
            progress=bar.report,
            journal=journal,
            first=first,
        )
        with contextlib.closing(outcomes):
            for job, outcome in zip(jobs, outcomes, strict=True):
                if isinstance(outcome, FlashribError):
                    results.append(_report_failure(job, outcome))
                else:
                    results.append(_values(outcome) | {"session": kind})
                    if outcome.lost:
                        print_note(f"{outcome.target}: does not keep {', '.join(outcome.lost)} of {outcome.source}")
                    if not (arguments.json or outcome.earlier or into_stdout):
                        print_line(_line(outcome))
                bar.finish()
        if journal is not None and not any("error" in result for result in results):
            journal.complete()
    return results, model, kind


def _check_pyramids(planned: list[Job]) -> None:
    """Refuse results that cannot be pyramids."""
    for job in planned:
        kind = format_of(job.target)
        if is_stream(str(job.target)) or kind is None or kind.name != "TIFF":
            raise UsageError(f"{job.target}: --pyramid is for TIFF: give a name such as large.tif, or --format tif")


def extension(text: str) -> str:
    """Read "jpg" or ".jpg"."""
    suffix = "." + text.lower().removeprefix(".")
    if suffix not in WRITTEN_SUFFIXES:
        known = ", ".join(name.removeprefix(".") for name in WRITTEN_SUFFIXES)
        raise argparse.ArgumentTypeError(f"{text!r} is none of the formats that are written: {known}")
    return suffix


def name_part(text: str) -> str:
    """Read a part of a file name."""
    if any(character in text for character in "/\\\0"):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be a part of a file name")
    return text


def size_in_bytes(text: str) -> int:
    """Read "800M" or "4G"."""
    found = re.fullmatch(r"([0-9]{1,6})([MG])B?", text, re.IGNORECASE)
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 800M or 4G")
    return int(found[1]) << (20 if found[2] in "mM" else 30)


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
    figures["lost"] = list(done.lost)
    return {"input": str(done.source), "output": str(done.target), **figures, "seconds": round(done.seconds, 3)}


def _line(done: Done) -> str:
    return (
        f"{done.source} ({done.width}x{done.height}) -> {done.target}"
        f" ({done.output_width}x{done.output_height}), {done.seconds:.1f} s"
    )


def _report_failure(job: Job, error: FlashribError | None) -> dict[str, Any]:
    print_error(error)
    return {"input": str(job.source), "output": str(job.target), "error": str(error)}
