"""The command `flashrib video`."""

import argparse
import os
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from flashrib.runtime.artifacts.files import sha256_of
from flashrib.runtime.cli.options import (
    add_cluster_options,
    add_model_options,
    add_tile_options,
    open_chosen,
    whole_number,
)
from flashrib.runtime.cli.output import PictureBar, print_error, print_json, print_line
from flashrib.runtime.errors import UsageError
from flashrib.runtime.jobs.video import VideoOptions, VideoReport, upscale_video
from flashrib.runtime.sessions.protocol import Pixels
from flashrib.runtime.tiling.frames import upscale_frames
from flashrib.runtime.video.codecs import CODECS, NAMES

PREVIEW_SECONDS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("input", metavar="IN", help="the video; -: from standard input")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        required=True,
        help="the file to write, whose suffix is its container: .mkv holds everything; -: YUV4MPEG2 to standard output",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a result that exists")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    group = parser.add_argument_group("video")
    table = "; ".join(f"{codec.name}: {codec.about}" for codec in CODECS if "nvenc" not in codec.encoder)
    group.add_argument(
        "--codec",
        choices=NAMES,
        help=f"{table}; *_nvenc: encoders of NVIDIA cards. Default: h265, vp9 for .webm, h264 for .avi",
    )
    group.add_argument(
        "--crf", metavar="N", type=whole_number(0, 63), help="quality on the codec's scale: less is better"
    )
    group.add_argument("--preset", metavar="NAME", help="effort of the encoder in its own words, such as slow")
    group.add_argument("--start", metavar="TIME", type=seconds, help="first moment: seconds, or [H:]M:S")
    group.add_argument("--end", metavar="TIME", type=seconds, help="moment at which to stop")
    group.add_argument(
        "--preview",
        metavar="SECONDS",
        nargs="?",
        type=seconds,
        const=Fraction(PREVIEW_SECONDS),
        help=f"only so many seconds ({PREVIEW_SECONDS} if not given), each frame beside its bicubic enlargement",
    )
    add_model_options(parser)
    add_tile_options(parser)
    add_cluster_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Upscale a video; sound, subtitles, chapters and tags are copied.

    Each frame keeps its time, also where the rate varies, and the depth, the matrix,
    the range and the transfer function (HDR) of the video. A job that was stopped or
    killed goes on where it was when the same command is given again.

    examples:
      flashrib video video.mkv -o large.mkv
      flashrib video video.mp4 -o look.mkv --start 10:00 --preview 5
      flashrib video video.mkv -o - | mpv -
    """
    start, end = arguments.start, arguments.end
    if arguments.preview is not None:
        if end is not None:
            raise UsageError("--preview and --end exclude each other: a preview ends by itself")
        end = (start or 0) + arguments.preview
    if arguments.output == "-" and arguments.json:
        raise UsageError("-o - and --json both want standard output")
    options = VideoOptions(
        arguments.codec, arguments.crf, arguments.preset, start, end, arguments.preview is not None, arguments.overwrite
    )
    os.environ.setdefault("SVT_LOG", "1")  # the encoder of AV1 says errors alone
    session, model, kind = open_chosen(arguments)
    with session, PictureBar(1) as bar:

        def upscale(frames: Iterator[Pixels]) -> Iterator[Pixels]:
            return upscale_frames(session, frames, tile=arguments.tile, halo=arguments.halo)

        def progress(done: int, total: int) -> None:
            bar.report(done, total or done + 1)

        bar.start(Path(arguments.input).name)
        identity = {
            "model": sha256_of(model),
            "session": kind,
            "precision": session.info.precision,
            "tile": str(arguments.tile),
            "halo": arguments.halo,
        }
        source, target = Path(arguments.input), Path(arguments.output)
        report = upscale_video(source, target, upscale, session.info.scale, identity, options, progress)
    for warning in report.warnings:
        print_error(warning, "warning")
    if arguments.json:
        print_json({"input": arguments.input, "output": arguments.output, "session": kind, **report.to_dict()})
    elif arguments.output != "-":
        print_line(_line(arguments.input, arguments.output, report))
    return 0


def seconds(text: str) -> Fraction:
    """Read "90", "1:30", "1:30.5" or "0:01:30"."""
    if not re.fullmatch(r"([0-9]{1,4}:){0,2}[0-9]{1,6}(\.[0-9]{1,9})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither seconds such as 90 nor a time such as 1:30 or 0:01:30.5")
    result = Fraction(0)
    for part in text.split(":"):
        result = result * 60 + Fraction(part)
    return result


def _line(source: str, target: str, report: VideoReport) -> str:
    earlier = f", {report.resumed} of an earlier run" if report.resumed else ""
    copied = f", with {', '.join(report.copied)}" if report.copied else ""
    return f"{source} -> {target} ({report.width}x{report.height}, {report.pixel_format}, {report.frames} frames{earlier}{copied})"
