"""The folder in which flashrib keeps for the user what it can make again."""

import os
import sys
from pathlib import Path

from flashrib.runtime.errors import FlashribError


def cache_folder() -> Path:
    """Return the folder as the system wants it; it need not exist.

    Raises:
        FlashribError: this user has no home.
    """
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or _home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or _home() / ".cache"
    return Path(base) / "flashrib"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # a user that the system does not know
        raise FlashribError("this user has no home folder for a cache: set XDG_CACHE_HOME to a folder") from error
