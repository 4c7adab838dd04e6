"""Folders for results."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from flashrib.runtime.errors import FlashribError


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; those that were made vanish again if the work fails before anything lies in them.

    Raises:
        FlashribError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FlashribError(f"{folder}: the folder cannot be made: {error.strerror}") from error
    try:
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
