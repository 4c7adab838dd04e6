"""Sizes of tiles that fitted where larger ones did not: found by trying, which takes time, so they are kept for the next run.

A file in the cache folder of the user; what cannot be read or written there is no matter.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from flashrib.runtime.artifacts.cache import cache_folder
from flashrib.runtime.artifacts.files import write_whole
from flashrib.runtime.errors import FlashribError

DAYS = 30
"""An entry counts for so long: another program may have had the memory."""


def most_pixels(place: str) -> int | None:
    """Return the input pixels of a tile that fitted, or None where larger ones were never tried in vain.

    Args:
        place: device, model and precision, see `Session.place`.
    """
    entry = _entries().get(place) if place else None
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(value, int) for value in entry):
        return None
    pixels, when = entry
    return pixels if pixels > 0 and time.time() - when < DAYS * 86400 else None


def remember(place: str, pixels: int) -> None:
    """Keep the input pixels of a tile that fitted where a larger one did not."""
    if not place:
        return
    with contextlib.suppress(OSError, FlashribError):
        path = _file()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(_entries() | {place: [pixels, int(time.time())]}, indent=1).encode())


def _entries() -> dict[str, Any]:
    try:
        entries = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError, RecursionError, FlashribError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _file() -> Path:
    return cache_folder() / "tiles.json"
