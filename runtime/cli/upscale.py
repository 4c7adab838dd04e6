"""The command `flashrib upscale`."""

import argparse
import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from flashrib.runtime.cli.options import add_model_options, add_tile_options, open_chosen, whole_number
from flashrib.runtime.cli.output import PictureBar, print_error, print_json, print_line
from flashrib.runtime.errors import FlashribError, OutOfMemoryError, PictureError, SessionError
from flashrib.runtime.jobs.folders import MadeFolders
from flashrib.runtime.jobs.plan import Job, plan_jobs
from flashrib.runtime.pictures.files import Picture, check_output, read_picture, write_picture
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.tiling.upscale import upscale_picture

PICTURES_AT_A_TIME = 4
"""Pictures that are read, upscaled or written at the same time where a GPU upscales: encoding takes longer than upscaling."""


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
        with PictureBar(len(jobs)) as bar, MadeFolders() as folders:
            batch = _Batch(session, arguments, bar, folders)
            for job, result in zip(jobs, batch.run(jobs), strict=True):
                if isinstance(result, FlashribError):
                    result = _report_failure(job, result)
                else:
                    result["session"] = kind
                    if not arguments.json:
                        print_line(_line(result))
                results.append(result)
                bar.finish()
        session.close()

    failed = sum("error" in result for result in results)
    if arguments.json:
        print_json({"model": model and str(model), "session": kind, "failed": failed, "pictures": results})
    elif len(jobs) > 1:
        print_line(f"{len(jobs) - failed} of {len(jobs)} pictures upscaled" + (f", {failed} failed" if failed else ""))
    return 1 if failed else 0


class _Batch:
    """Upscales pictures one after the other; where a GPU does it, others are read and written meanwhile."""

    def __init__(self, session: Session, arguments: argparse.Namespace, bar: PictureBar, folders: MadeFolders) -> None:
        self._session, self._arguments, self._bar, self._folders = session, arguments, bar, folders
        self._one_at_a_time = threading.Lock()
        self._stopped = False

    def run(self, jobs: list[Job]) -> Iterator[dict[str, Any] | FlashribError]:
        """Yield what --json says about each picture, or what is wrong with it, in order."""
        if len(jobs) == 1 or all(worker.ahead == 1 for worker in self._session.workers):
            yield from map(self._outcome, jobs)
            return
        with ThreadPoolExecutor(PICTURES_AT_A_TIME, thread_name_prefix="flashrib-pictures") as pool:
            try:
                yield from pool.map(self._outcome, jobs)
            except BaseException:  # Ctrl-C: what is in work ends, or stops at the next tile
                self._stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _outcome(self, job: Job) -> dict[str, Any] | FlashribError:
        try:
            return self._upscale(job)
        except FlashribError as error:
            return error

    def _upscale(self, job: Job) -> dict[str, Any]:
        """Read, upscale and write one picture."""
        if job.error:
            raise job.error
        started = time.perf_counter()
        count = TileCount()
        arguments, scale = self._arguments, self._session.info.scale

        def progress(done: int, total: int) -> None:
            if self._stopped:
                raise SessionError("stopped")
            count.report(done)
            self._bar.report(done, total)

        try:
            picture = read_picture(job.source)
            height, width = picture.height * scale, picture.width * scale
            self._folders.make(job.target.parent)
            check_output(
                job.target, overwrite=arguments.overwrite, height=height, width=width, alpha=_is_see_through(picture)
            )
            waited = time.perf_counter()
            with self._one_at_a_time:
                started += time.perf_counter() - waited  # the time of others
                self._bar.start(job.source.name)
                upscaled = upscale_picture(
                    self._session, picture, tile=arguments.tile, halo=arguments.halo, progress=progress
                )
            write_picture(job.target, upscaled, overwrite=arguments.overwrite, quality=arguments.quality)
        except PictureError:
            raise  # names the file already
        except FlashribError as error:
            raise type(error)(f"{job.source}: {error}") from error
        except MemoryError as error:
            raise OutOfMemoryError(f"{job.source}: does not fit into memory") from error
        return {
            "input": str(job.source),
            "output": str(job.target),
            "width": picture.width,
            "height": picture.height,
            "output_width": width,
            "output_height": height,
            "seconds": round(time.perf_counter() - started, 3),
            "tiles": count.tiles,
        }


@dataclasses.dataclass
class TileCount:
    """Counts the tiles from what `upscale_picture` reports; it starts anew when smaller tiles are tried."""

    tiles: int = 0
    _last: int = 0

    def report(self, done: int) -> None:
        """Take the number of pixels done."""
        if done < self._last:
            self.tiles = 0
        elif done > self._last:
            self.tiles += 1
        self._last = done


def _is_see_through(picture: Picture) -> bool:
    alpha = picture.alpha
    return alpha is not None and bool(alpha.min() < np.iinfo(alpha.dtype).max)


def _line(result: dict[str, Any]) -> str:
    return (
        f"{result['input']} ({result['width']}x{result['height']}) -> {result['output']}"
        f" ({result['output_width']}x{result['output_height']}), {result['seconds']:.1f} s"
    )


def _report_failure(job: Job, error: FlashribError | None) -> dict[str, Any]:
    print_error(error)
    return {"input": str(job.source), "output": str(job.target), "error": str(error)}
