"""Folders for results."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from flashrib.runtime.errors import FlashribError


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; those that were made vanish again if the work fails before anything lies in them.

    Raises:
        FlashribError: it cannot be made.
    """
    missing = _make(folder)
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


class MadeFolders:
    """Folders for the results of several pictures, made when a result is about to be written, from any thread.

    At the end those that were made and hold nothing vanish again.
    """

    def __init__(self) -> None:
        self._made: list[Path] = []
        self._lock = threading.Lock()

    def make(self, folder: Path) -> None:
        """Make a folder and those above it.

        Raises:
            FlashribError: it cannot be made.
        """
        with self._lock:
            self._made += _make(folder)

    def __enter__(self) -> "MadeFolders":
        return self

    def __exit__(self, *_: object) -> None:
        for path in sorted(self._made, key=lambda path: -len(path.parts)):
            with contextlib.suppress(OSError):
                path.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; returns those that were missing, the lowest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlashribError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    return missing
