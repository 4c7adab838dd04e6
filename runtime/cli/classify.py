"""The command `flashrib classify`."""

import argparse
from pathlib import Path
from typing import Any

from flashrib.runtime.cli.options import add_model_options, open_chosen, whole_number
from flashrib.runtime.cli.output import PictureBar, print_json, print_line
from flashrib.runtime.errors import UsageError
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.pictures.labelled import read_labels
from flashrib.runtime.quality.classify import Scored, classify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="pictures, or folders of pictures")
    parser.add_argument(
        "--labels", metavar="FILE", type=Path, help="names of the classes, one in a line, class 0 first"
    )
    parser.add_argument(
        "--top",
        metavar="N",
        type=whole_number(1, 1000),
        default=5,
        help="likeliest classes to print (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_model_options(parser, bundled=False)


def run(arguments: argparse.Namespace) -> int:
    """Say what pictures show, with a classifier.

    Every picture is scaled, its middle square cut out, and given to the model; the
    likeliest classes are printed with their probabilities.

    examples:
      flashrib classify cat.jpg --model vit.onnx --labels imagenet.txt
      flashrib classify photos/ --model vit.safetensors --top 1 --json
    """
    if arguments.model is None:
        raise UsageError("name the classifier with --model; the bundled models upscale")
    labels = None if arguments.labels is None else read_labels(arguments.labels)
    pictures = [path for image in arguments.images for path in (list_pictures(image) if image.is_dir() else [image])]
    session, model, kind = open_chosen(arguments, task="classify")
    results: list[dict[str, Any]] = []
    with PictureBar(len(pictures)) as bar, session:
        bar.start(pictures[0].name)
        for scored in classify(session, pictures):
            bar.finish()
            check_labels(labels, scored, arguments.labels)
            classes = [
                {"class": number, "label": None if labels is None else labels[number], "probability": probability}
                for number, probability in scored.best(arguments.top)
            ]
            results.append({"picture": str(scored.picture), "classes": classes})
            if not arguments.json:
                _print(scored.picture, classes)
    if arguments.json:
        print_json({"model": str(model), "session": kind, "pictures": results})
    return 0


def check_labels(labels: list[str] | None, scored: Scored, path: Path | None) -> None:
    """Refuse names that are not as many as the model's classes."""
    if labels is not None and len(labels) != len(scored.logits):
        raise UsageError(f"{path}: holds {len(labels)} names, but the model has {len(scored.logits)} classes")


def _print(picture: Path, classes: list[dict[str, Any]]) -> None:
    print_line(f"{picture}:")
    for entry in classes:
        name = entry["class"] if entry["label"] is None else f"{entry['label']} ({entry['class']})"
        print_line(f"  {entry['probability']:7.2%}  {name}")
