"""The pictures in a folder, and what beside them is passed over."""

import dataclasses
import os
import stat
from pathlib import Path

from flashrib.runtime.errors import PictureError
from flashrib.runtime.pictures.formats import OTHER_SUFFIXES, SUFFIXES

MOST_NAMED = 5  # files that a line names


@dataclasses.dataclass(frozen=True)
class Listing:
    """What was found.

    Attributes:
        pictures: files that are named like pictures, sorted; hidden ones are left out.
        unreadable: (path, why) of folders, links and files that cannot be looked at, sorted.
        notes: what was passed over on purpose, for the user to read.
    """

    pictures: list[Path]
    unreadable: list[tuple[Path, str]]
    notes: list[str]


def list_pictures(folder: Path, *, recursive: bool = False, besides: Path | None = None) -> list[Path]:
    """Return the files in a folder that are named like pictures, sorted; see `survey`.

    Raises:
        PictureError: the folder is missing, cannot be read, or has no pictures.
    """
    pictures = survey(folder, recursive=recursive, besides=besides).pictures
    if not pictures:
        below = "" if recursive else "; its folders are not looked into"
        raise PictureError(f"{folder}: no pictures in this folder ({', '.join(SUFFIXES)}){below}")
    return pictures


def survey(folder: Path, *, recursive: bool = False, besides: Path | None = None) -> Listing:
    """Look for pictures in a folder.

    Args:
        folder: where to look.
        recursive: look into the folders below as well, but for hidden ones and links to folders.
        besides: a folder below it whose files are left out, such as that of earlier results.

    Raises:
        PictureError: the folder is missing or cannot be read.
    """
    # Links that lead round in a circle are no reason to stop.
    left_out = Path(os.path.realpath(besides)) if besides else None
    if left_out and Path(os.path.realpath(folder)).is_relative_to(left_out):
        left_out = None
    found = Listing([], [], [])
    others: list[Path] = []
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            names = os.listdir(here)
        except OSError as error:
            reason = error.strerror or str(error)
            if here is folder:
                raise PictureError(f"{folder}: cannot be read as a folder of pictures: {reason}") from error
            found.unreadable.append((here, f"the folder cannot be read: {reason}"))
            continue
        for name in names:
            path = here / name
            if name.startswith(".") or (left_out and Path(os.path.realpath(path)).is_relative_to(left_out)):
                continue
            _sort_in(path, recursive, found, others, waiting)
    found.pictures.sort()
    found.unreadable.sort()
    if others:
        others.sort()
        more = "" if len(others) <= MOST_NAMED else f" and {len(others) - MOST_NAMED} more"
        named = ", ".join(str(path.relative_to(folder)) for path in others[:MOST_NAMED])
        found.notes.append(f"{folder}: passed over, since such files are not read: {named}{more}")
    found.notes.sort()
    return found


def _sort_in(path: Path, recursive: bool, found: Listing, others: list[Path], waiting: list[Path]) -> None:
    """Put one entry of a folder where it belongs."""
    suffix = path.suffix.lower()
    named = suffix in SUFFIXES
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if named:
            broken = path.is_symlink() and not os.path.exists(path)
            reason = "the link leads nowhere" if broken else f"cannot be read: {error.strerror or error}"
            found.unreadable.append((path, reason))
        return
    if stat.S_ISDIR(mode):
        if recursive and path.is_symlink():
            found.notes.append(f"{path}: links to folders are not followed; name it to take its pictures")
        elif recursive:
            waiting.append(path)
    elif named and stat.S_ISREG(mode):
        found.pictures.append(path)
    elif named:
        found.notes.append(f"{path}: passed over, since it is not a regular file")
    elif suffix in OTHER_SUFFIXES:
        others.append(path)
