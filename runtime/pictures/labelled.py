"""Pictures with the numbers of their classes, from a folder or a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from flashrib.runtime.errors import PictureError, UsageError
from flashrib.runtime.pictures.folder import list_pictures


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
