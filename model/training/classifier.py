"""`flashrib train` of classifiers: from a TOML file with task = "classify", on a folder for every class or a CSV file.

task = "classify"
data = "train/"                 # a folder for every class, or a CSV file with the columns picture and label
validation = "val/"             # the same; may be left out
arch = "fibottention-tiny-16"   # a preset; or start = "vit.safetensors" to finetune, also a plain ViT
epochs = 30                     # and other fields of `flashrib.model.training.classify.FitOptions`

[network]                       # fields of the network's configuration that shall differ
mask_mode = "neg_inf"
order = "depth0"
"""

import csv
import dataclasses
import math
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flashrib.model.architectures.registry import name_of, network_from_config, preset, presets
from flashrib.model.checkpoint import load_model
from flashrib.model.config import NetworkConfig
from flashrib.model.network import Network
from flashrib.model.training.classify import FitOptions, accuracy, begin, fit
from flashrib.model.training.log import LOG
from flashrib.model.training.state import LOCK, STATE, WEIGHTS
from flashrib.runtime import schema
from flashrib.runtime.artifacts.files import replacing
from flashrib.runtime.artifacts.lock import locked
from flashrib.runtime.errors import UsageError
from flashrib.runtime.pictures.crop import square
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.labelled import find_labelled

TASK = "classify"


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """One training run of a classifier.

    Attributes:
        data: folder or CSV file of the training's pictures.
        validation: the same of pictures whose accuracy is logged; None: none.
        arch: preset to train; empty where `start` is given.
        start: checkpoint to start from; None: random weights. A head for another number of classes starts from random weights.
        network: fields of the network's configuration that shall differ from the preset's or the checkpoint's.
        fit: how it is trained.
        key: where `start` holds several dictionaries, which one is the network; None: found.
    """

    data: Path
    validation: Path | None = None
    arch: str = ""
    start: Path | None = None
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fit: FitOptions = dataclasses.field(default_factory=FitOptions)
    key: str | None = None


@dataclasses.dataclass(frozen=True)
class _Run(FitOptions):
    """What a run must have in common with the one that it continues: how and what network is trained, and the number of pictures."""

    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    pictures: int = 0


def is_classifier(path: Path) -> bool:
    """Say whether a TOML file configures the training of a classifier; False for what cannot be read, too."""
    try:
        return tomllib.loads(schema.read_text(path)).get("task") == TASK
    except (OSError, ValueError, RecursionError):
        return False


def read_classifier_config(path: Path, start: Path | None = None, key: str | None = None) -> ClassifierConfig:
    """Read a TOML file; paths are taken relative to it. `start` and `key` take the place of the file's.

    Raises:
        UsageError: unknown, missing, mistyped or out-of-range fields.
    """
    values = tomllib.loads(schema.read_text(path))
    del values["task"]
    options = {field.name: field for field in dataclasses.fields(FitOptions)}
    known = ("data", "validation", "arch", "start", "key", "network", *options)
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(f"{path}: unknown field(s) {', '.join(unknown)}; known are {', '.join(known)}")
    network, arch = values.get("network", {}), values.get("arch", "")
    for name in ("data", "validation", "arch", "start", "key"):
        if not isinstance(values.get(name, ""), str):
            raise UsageError(f"{path}: {name} = {values[name]!r} must be text")
    if not values.get("data"):
        raise UsageError(f"{path}: the field data is missing: a folder with a folder for every class, or a CSV file")
    if not isinstance(network, dict):
        raise UsageError(f"{path}: network must be a table, [network]")
    for name, field in options.items():
        wanted = type(field.default)
        if wanted is float and type(values.get(name)) is int:
            values[name] = float(values[name])
        if name in values and type(values[name]) is not wanted:
            raise UsageError(f"{path}: {name} = {values[name]!r} must be of type {wanted.__name__}")
    fit_options = FitOptions(**{name: values[name] for name in options if name in values})
    _check(path, fit_options)
    given = start or (path.parent / values["start"] if values.get("start") else None)
    if bool(arch) == (given is not None):
        raise UsageError(
            f"{path}: name either arch, a preset to begin from random weights, or start, a checkpoint to finetune"
        )
    key = key or values.get("key") or None
    if key and given is None:
        raise UsageError(f"{path}: key = {key!r} says where in a checkpoint the network is: name the file with start")
    if arch and arch not in presets(TASK):
        raise UsageError(f"{path}: arch = {arch!r} is none of {', '.join(presets(TASK))}")
    validation = path.parent / values["validation"] if values.get("validation") else None
    return ClassifierConfig(path.parent / values["data"], validation, arch, given, network, fit_options, key)


def train_classifier(
    config: ClassifierConfig, folder: Path, *, device: str = "auto", minutes: float = math.inf
) -> Path:
    """Train, or continue the run that lies in `folder`; return the path of the averaged weights.

    All files are written after every epoch, and a run that is continued comes to the same weights as without the interruption.

    Args:
        config: what to train.
        folder: exists; gets `weights.safetensors` (averaged), `state.pth` (resumable) and `log.csv`.
        device: "auto", "cpu" or "cuda".
        minutes: stop after the epoch in which they are over.

    Raises:
        UsageError: the folder holds weights without a state or another run, or fields of `network` that the network has not.
        PictureError, CheckpointError: pictures, `start` or the state that cannot be read.
        FlashribError: the loss became infinite or NaN, or another training writes into the folder.
    """
    started = time.monotonic()
    if (folder / WEIGHTS).exists() and not (folder / STATE).exists():
        raise UsageError(
            f"{folder}: holds trained weights already, and no state to go on from: choose another folder, or start from them with --start"
        )
    found = find_labelled(config.data)
    torch.manual_seed(config.fit.seed)
    network = _network(config, classes=1 + max(label for _, label in found))
    facts: Any = network.config  # a dataclass
    run = _Run(**dataclasses.asdict(config.fit), network=dataclasses.asdict(facts), pictures=len(found))
    where = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
    state = begin(network, config.fit, where)
    if (folder / STATE).exists():
        state.load(folder, run)
    size = network.config.inputs()[0].example[-1]
    pictures, labels = _loaded(found, size)
    held = None if config.validation is None else _loaded(find_labelled(config.validation), size)
    with locked(folder / LOCK, str(folder)):
        for epoch in fit(state, pictures, labels, config.fit, where):
            share = ""
            if held is not None:
                with state.averaged():
                    share = f"{accuracy(network, *held, device=where):.4f}"
            _log(folder / LOG, [str(epoch.number), f"{epoch.loss:.5f}", share, f"{epoch.seconds:.1f}"])
            state.save(folder, run)
            if time.monotonic() - started > 60 * minutes:
                break
    return folder / WEIGHTS


def _log(path: Path, row: list[str]) -> None:
    """Write the row of an epoch below those of the epochs before; a row of the same epoch is of a run that was stopped before it saved."""
    rows = [["epoch", "loss", "validation", "seconds"]]
    if row[0] != "1" and path.exists():
        with path.open(newline="") as file:
            rows = list(csv.reader(file))[: int(row[0])]
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([*rows, row])


def _network(config: ClassifierConfig, classes: int) -> Network:
    """The network to begin with."""
    started = None if config.start is None else load_model(config.start, key=config.key)
    base: Any = preset(config.arch) if started is None else started.config
    if base.task != TASK:
        raise UsageError(f"{config.start}: is {base.name}, which upscales and does not classify")
    try:
        changed: NetworkConfig = dataclasses.replace(base, **{**config.network, "classes": classes, "name": ""})
    except TypeError as error:
        raise UsageError(f"[network]: {error}") from error
    network = network_from_config(dataclasses.replace(changed, name=name_of(changed)))  # type: ignore[type-var]  # a dataclass
    if started is not None:
        weights = {
            key: value for key, value in started.state_dict().items() if base.classes == classes or "head." not in key
        }
        own = network.state_dict()
        if wrong := [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]:
            raise UsageError(f"[network]: {config.start} does not fit: {wrong[0]} would have another shape")
        network.load_state_dict({**own, **weights})
    return network


def _loaded(found: list[tuple[Path, int]], size: int) -> tuple[Tensor, Tensor]:
    pictures = np.stack([square(read_picture(path), size).transpose(2, 0, 1) for path, _ in found])
    return torch.from_numpy(pictures), torch.tensor([label for _, label in found])


def _check(path: Path, options: FitOptions) -> None:
    checks = {
        "epochs": options.epochs >= 1,
        "batch": options.batch >= 1,
        "lr": 0 < options.lr < math.inf,
        "weight_decay": 0 <= options.weight_decay < math.inf,
        "warmup": 0 <= options.warmup < options.epochs,
        "ema": 0 <= options.ema < 1,
        "smoothing": 0 <= options.smoothing < 1,
        "clip": options.clip > 0,
        "shift": options.shift >= 0,
        "seed": abs(options.seed) < 2**63,  # what torch takes
    }
    for name, valid in checks.items():
        if not valid:
            raise UsageError(f"{path}: {name} = {getattr(options, name)!r} is out of range")
