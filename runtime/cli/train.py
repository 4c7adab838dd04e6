"""The command `flashrib train`."""

import argparse
import dataclasses
import math
from pathlib import Path

from flashrib.runtime.artifacts.bundled import or_bundled_weights
from flashrib.runtime.cli.options import positive_number
from flashrib.runtime.cli.output import print_line, print_note
from flashrib.runtime.errors import UsageError
from flashrib.runtime.jobs.folders import made_folder
from flashrib.runtime.sessions.torch_plain import DEVICES, require_torch
from flashrib.runtime.stopping import keep_imported


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "config",
        metavar="CONFIG.toml",
        type=Path,
        help="what to train on which pictures; see flashrib.model.training.config",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        required=True,
        help="gets weights.safetensors, state.pth, log.csv and curves.png",
    )
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where to train; auto: a CUDA GPU if there is one"
    )
    parser.add_argument(
        "--minutes",
        metavar="N",
        type=positive_number,
        default=math.inf,
        help="stop after this time; a later call continues",
    )
    parser.add_argument(
        "--start", metavar="CKPT", type=Path, help="start from the weights of this checkpoint, or of a bundled model"
    )
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="where in that file the network is, if it is not found, such as state_dict.generator",
    )
    parser.add_argument(
        "--qat",
        choices=("int8", "fp8"),
        help="finetune for this quantization, from --start: steps see its roundings; a few hundred are enough",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train a network.

    A folder that holds a run of the same configuration continues it. Prints the
    path of the trained weights. A configuration with task = "classify" trains a
    classifier on a folder for every class, see flashrib.model.training.classifier.

    examples:
      flashrib train sst-light-x2.toml -o run/ --minutes 30
      flashrib train finetune.toml -o qat/ --start run/weights.safetensors --qat fp8
    """
    require_torch("training", extra="train")
    from flashrib.model.training.classifier import is_classifier, read_classifier_config, train_classifier
    from flashrib.model.training.config import read_config
    from flashrib.model.training.loop import train
    from flashrib.model.training.parallel import started
    from flashrib.model.training.state import STATE

    keep_imported()
    if is_classifier(arguments.config):
        if arguments.qat:
            raise UsageError("--qat finetunes networks that upscale: leave it out for a classifier")
        classifier = read_classifier_config(arguments.config, arguments.start, arguments.key)
        with made_folder(arguments.output):
            weights = train_classifier(classifier, arguments.output, device=arguments.device, minutes=arguments.minutes)
        print_line(str(weights))
        return 0
    config = read_config(arguments.config)
    start = arguments.start and str(or_bundled_weights(arguments.start))
    changed = {"start": start, "key": arguments.key, "qat": arguments.qat}
    config = dataclasses.replace(config, **{name: value for name, value in changed.items() if value})
    if start and (arguments.output / STATE).is_file():
        print_note(f"{arguments.output}: goes on from its own state, not from {arguments.start}")
    with made_folder(arguments.output):
        weights = train(config, arguments.output, device=arguments.device, minutes=arguments.minutes)
    if started().first:
        print_line(str(weights))
    return 0
