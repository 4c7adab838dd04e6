"""Pictures -> classes, and how often they are the right ones."""

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flashrib.runtime.errors import PictureError, SessionError, UsageError
from flashrib.runtime.pictures.crop import square
from flashrib.runtime.pictures.files import read_picture
from flashrib.runtime.pictures.folder import list_pictures
from flashrib.runtime.sessions.protocol import Session

BATCH = 8  # pictures of a run


@dataclasses.dataclass(frozen=True)
class Scored:
    """Logits (K,) of a picture."""

    picture: Path
    logits: NDArray[np.float32]

    def best(self, count: int) -> list[tuple[int, float]]:
        """The `count` likeliest classes with their probabilities, likeliest first; of equal ones the lower number."""
        order = np.argsort(-self.logits, kind="stable")[:count]
        wide = self.logits.astype(np.float64)
        weights = np.exp(wide - wide.max())
        return [(int(i), float(weights[i] / weights.sum())) for i in order]


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """Share of the pictures whose class is the likeliest one, and among the five likeliest."""

    pictures: int
    top1: float
    top5: float


def classify(session: Session, pictures: Sequence[Path]) -> Iterator[Scored]:
    """Give the logits of every picture, in order.

    Args:
        session: of a classifier; it takes pictures of one size, which they are cut to (`flashrib.runtime.pictures.crop.square`).
        pictures: files.

    Raises:
        PictureError: a picture cannot be read.
        SessionError: the model failed, or gave NaN or infinity.
    """
    size = session.info.fixed_size
    if size is None or size[0] != size[1]:
        raise SessionError(f"the classifier does not say the side of its pictures (it says {size}): export it anew")
    for begin in range(0, len(pictures), BATCH):
        paths = pictures[begin : begin + BATCH]
        cut = np.stack([square(read_picture(path), size[0]) for path in paths])
        batch = np.ascontiguousarray(cut.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
        logits = session.run(batch)
        if logits.ndim != 2 or len(logits) != len(paths):
            raise SessionError(
                f"the model returned the shape {logits.shape} for {len(paths)} pictures, not their logits"
            )
        for path, row in zip(paths, logits, strict=True):
            if not np.isfinite(row).all():
                raise SessionError(
                    f"the model returned NaN or infinity for {path}: use a model of higher precision (fp32)"
                )
            yield Scored(path, row)


def read_labels(path: Path) -> list[str]:
    """Names of the classes, one in a line, class 0 first.

    Raises:
        UsageError: the file cannot be read or has no lines.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as names of classes: {error}") from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise UsageError(f"{path}: holds no names of classes, one in a line")
    return names


def find_labelled(source: Path, labels: Sequence[str] | None = None) -> list[tuple[Path, int]]:
    """Pictures and the numbers of their classes.

    Args:
        source: a folder with a folder for every class, or a CSV file with the columns picture (relative to it) and label.
        labels: names of the classes. With them, folders and labels are such names, or numbers; without, folders are the classes in the
            order of their names, and labels are numbers.

    Raises:
        PictureError: the folder or the file cannot be read, or holds no pictures.
        UsageError: a label that is no class.
    """
    if not source.is_dir():
        return _from_csv(source, labels)
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise PictureError(
            f"{source}: has no folders, one for every class; a CSV file of picture and label is taken as well"
        )
    found = []
    for number, folder in enumerate(folders):
        label = number if labels is None else _number(folder.name, labels, str(folder))
        found += [(path, label) for path in list_pictures(folder)]
    return found


def accuracy(scored: Sequence[Scored], labels: Sequence[int]) -> Accuracy:
    """How often the labels, one for every picture, are the likeliest class and among the five likeliest."""
    best = [[number for number, _ in one.best(5)] for one in scored]
    first = sum(numbers[0] == label for numbers, label in zip(best, labels, strict=True))
    five = sum(label in numbers for numbers, label in zip(best, labels, strict=True))
    return Accuracy(len(scored), first / len(scored), five / len(scored))


def _from_csv(path: Path, labels: Sequence[str] | None) -> list[tuple[Path, int]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PictureError(f"{path}: cannot be read as a CSV file of pictures and labels: {error}") from error
    if not rows or not {"picture", "label"} <= rows[0].keys():
        raise PictureError(f"{path}: a CSV file must have the columns picture and label, and at least one line")
    found = []
    for line, row in enumerate(rows, 2):
        if not row["picture"] or not row["label"]:
            raise PictureError(f"{path}: line {line} has no picture or no label")
        found.append((path.parent / row["picture"], _number(row["label"], labels, f"{path}, line {line}")))
    return found


def _number(label: str, labels: Sequence[str] | None, where: str) -> int:
    if labels is not None and label in labels:
        return labels.index(label)
    if label.isascii() and label.isdigit() and len(label) < 8:
        return int(label)
    known = "a number of a class" if labels is None else "a name in --labels or a number"
    raise UsageError(f"{where}: the label {label!r} is not {known}")
