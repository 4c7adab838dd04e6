"""The command `flashrib evaluate`."""

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

from flashrib.runtime.cli.classify import check_labels
from flashrib.runtime.cli.options import add_ensemble_option, add_model_options, add_tile_options, open_chosen
from flashrib.runtime.cli.output import PictureBar, print_json, print_line
from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.pictures.imresize import imresize
from flashrib.runtime.pictures.labelled import find_labelled, read_labels
from flashrib.runtime.quality.classify import accuracy, classify
from flashrib.runtime.quality.evaluate import Pair, Score, all_of, average, evaluate, find_pairs
from flashrib.runtime.quality.niqe import niqe
from flashrib.runtime.quality.published import published
from flashrib.runtime.sessions.protocol import Session
from flashrib.runtime.sessions.table import describe_model
from flashrib.runtime.tiling.upscale import upscale_array


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "folders",
        metavar="DIR",
        nargs="*",
        type=Path,
        help="one test set or several: NAME_HR.* beside NAME_LR.*, or high-resolution pictures alone; for a classifier a folder"
        " for every class, or a CSV file with the columns picture and label",
    )
    parser.add_argument("--hr", metavar="DIR", type=Path, help="the high-resolution pictures, instead of DIR")
    parser.add_argument(
        "--lr",
        metavar="DIR",
        type=Path,
        help="the low-resolution pictures, of the same names but for endings such as x2 or _LR; without --hr: pictures that there are"
        " no originals of",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=Path,
        help="of a classifier: names of the classes, one in a line, class 0 first",
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="print what the authors published for sets called Set5, Set14, BSD100, Urban100 or Manga109 beside it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_ensemble_option(parser)
    add_model_options(parser)
    add_tile_options(parser, default="each picture whole")


def run(arguments: argparse.Namespace) -> int:
    """Measure a model on pictures whose originals are at hand.

    PSNR in dB and SSIM per picture and on average, beside those of bicubic
    interpolation, as the super-resolution literature computes them: on 8 bits,
    luma, without a border of as many pixels as the scale. Low-resolution pictures
    that are not at hand are made as MATLAB's imresize makes them.

    With --lr alone: NIQE of the results and of bicubic enlargement, which tells without
    originals how natural they look; lower is better.

    Of a classifier: how often the right class is the likeliest one (top-1) and among
    the five likeliest (top-5).

    examples:
      flashrib evaluate Set5/ Set14/ Urban100/ --compare
      flashrib evaluate imagenet/val/ --model vit.onnx
      flashrib evaluate --hr DIV2K_valid_HR/ --lr DIV2K_valid_LR_bicubic/X2/ --json
    """
    if arguments.lr is not None and arguments.hr is None and not arguments.folders:
        return _evaluate_without_originals(arguments)
    if (not arguments.folders) == (arguments.hr is None):
        raise UsageError("give either DIR or --hr DIR (see: flashrib evaluate --help)")
    if arguments.lr is not None and arguments.hr is None:
        raise UsageError(f"--lr {arguments.lr} needs --hr (see: flashrib evaluate --help)")
    if arguments.model is not None and arguments.folders and _classifies(arguments):
        return _evaluate_classifier(arguments)
    if arguments.labels is not None:
        raise UsageError(f"--labels {arguments.labels} is for classifiers: leave it out, or choose one with --model")
    folders = [arguments.hr] if arguments.hr is not None else arguments.folders
    sets = {folder: find_pairs(folder, arguments.lr) for folder in folders}
    session, model, kind = open_chosen(arguments)
    documents = []
    with session:
        for folder, pairs in sets.items():
            if len(sets) > 1 and not arguments.json:
                print_line(f"{folder}:")
            documents.append({"folder": str(folder)} | _evaluate_set(arguments, session, folder, pairs))
    if arguments.json:
        about = {"model": str(model), "session": kind, "scale": session.info.scale}
        if len(documents) == 1:
            del documents[0]["folder"]
        print_json(about | (documents[0] if len(documents) == 1 else {"sets": documents}))
    return 0


def _evaluate_set(arguments: argparse.Namespace, session: Session, folder: Path, pairs: list[Pair]) -> dict[str, Any]:
    """Evaluate one test set; returns what --json says about it, and prints the table without."""
    width = max(len("picture"), *(len(pair.name) for pair in pairs))
    scores: list[Score] = []
    with PictureBar(len(pairs)) as bar:
        bar.start(pairs[0].name)
        for score in evaluate(session, pairs, tile=arguments.tile, halo=arguments.halo, progress=bar.report):
            scores.append(score)
            bar.finish()
            if len(scores) < len(pairs):
                bar.start(pairs[len(scores)].name)
            if not arguments.json:
                if len(scores) == 1:
                    print_line(_columns("picture", "PSNR", "SSIM", "bicubic PSNR", "bicubic SSIM", width=width))
                print_line(_row(score, width))
    mean = average(scores)
    document = {"pictures": [_values(score) for score in scores], "average": _values(mean)}
    others = published(folder, session.info.scale) if arguments.compare else ()
    if arguments.compare:
        document["published"] = [dataclasses.asdict(other) for other in others]
    if not arguments.json:
        print_line(_row(mean, width))
        for other in others:
            ssim = "" if other.ssim is None else f", SSIM {other.ssim:.4f}"
            print_line(f"published: {other.network} {other.psnr:.2f} dB{ssim}")
        if arguments.compare and not others:
            print_line(f"published: nothing for x{session.info.scale} of a set called {folder.name}")
    return document


def _evaluate_without_originals(arguments: argparse.Namespace) -> int:
    """NIQE of what the model makes of each picture, and of its bicubic enlargement."""
    paths = list_pictures(arguments.lr)
    if not paths:
        raise UsageError(f"{arguments.lr}: holds no pictures")
    width = max(len("picture"), *(len(path.stem) for path in paths))
    rows: list[dict[str, Any]] = []
    bad: list[PictureError] = []
    session, model, kind = open_chosen(arguments)
    with PictureBar(len(paths)) as bar, session:
        for path in paths:
            bar.start(path.name)
            try:
                low = read_picture(path).pixels
            except PictureError as error:
                bad.append(error)
                continue
            high = upscale_array(session, low, tile=arguments.tile, halo=arguments.halo, progress=bar.report)
            try:
                figures = {"niqe": niqe(high), "bicubic_niqe": niqe(imresize(low, float(session.info.scale)))}
            except UsageError as error:  # too small
                bad.append(PictureError(f"{path}: {error}"))
                continue
            rows.append({"name": path.stem, **figures})
            bar.finish()
            if not arguments.json:
                if len(rows) == 1:
                    print_line(f"{'picture':{width}}  {'NIQE':>8}  {'bicubic NIQE':>12}")
                print_line(f"{path.stem:{width}}  {rows[-1]['niqe']:8.3f}  {rows[-1]['bicubic_niqe']:12.3f}")
    if bad:
        raise all_of(bad)
    mean = {key: sum(row[key] for row in rows) / len(rows) for key in ("niqe", "bicubic_niqe")}
    if arguments.json:
        about = {"model": str(model), "session": kind, "scale": session.info.scale}
        print_json(about | {"pictures": rows, "average": mean})
    else:
        print_line(f"{'average':{width}}  {mean['niqe']:8.3f}  {mean['bicubic_niqe']:12.3f}")
    return 0


def _classifies(arguments: argparse.Namespace) -> bool:
    """Say whether the model is a classifier."""
    return describe_model(arguments.model, arguments.arch, arguments.scale, arguments.key).get("task") == "classify"


def _evaluate_classifier(arguments: argparse.Namespace) -> int:
    labels = None if arguments.labels is None else read_labels(arguments.labels)
    if len(arguments.folders) > 1 or arguments.compare:
        raise UsageError("a classifier is evaluated on one DIR, and nothing is published for --compare")
    (folder,) = arguments.folders
    found = find_labelled(folder, labels)
    session, model, kind = open_chosen(arguments, task="classify")
    scored = []
    with PictureBar(len(found)) as bar, session:
        bar.start(str(folder))
        for one in classify(session, [path for path, _ in found]):
            bar.finish()
            scored.append(one)
    classes = len(scored[0].logits)
    check_labels(labels, scored[0], arguments.labels)
    if over := [(path, label) for path, label in found if label >= classes]:
        raise UsageError(f"{over[0][0]}: is of class {over[0][1]}, but the model has {classes} classes")
    result = accuracy(scored, [label for _, label in found])
    if arguments.json:
        print_json({"model": str(model), "session": kind, **dataclasses.asdict(result)})
    else:
        print_line(f"{result.pictures} pictures: top-1 {result.top1:.2%}, top-5 {result.top5:.2%}")
    return 0


def _row(score: Score, width: int) -> str:
    figures = f"{score.psnr:.3f}", f"{score.ssim:.4f}", f"{score.bicubic_psnr:.3f}", f"{score.bicubic_ssim:.4f}"
    return _columns(score.name, *figures, width=width)


def _columns(name: str, *figures: str, width: int) -> str:
    return f"{name:<{width}}" + "".join(
        f"{figure:>{size}}" for figure, size in zip(figures, (9, 8, 15, 14), strict=True)
    )


def _values(score: Score) -> dict[str, Any]:
    """The fields for JSON, which has no infinity: null stands for the PSNR of equal pictures."""
    return {
        name: None if isinstance(value, float) and math.isinf(value) else value
        for name, value in dataclasses.asdict(score).items()
        if score.height or name not in ("height", "width")
    }
