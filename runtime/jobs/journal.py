"""What a batch has done, written beside its results, so that a run that was killed goes on where it stopped.

`.flashrib-journal.jsonl` in the folder of the results: the first line says what decides the results, then each picture has a line when it
begins and one when it is whole. A result that was begun and is not whole is ours and is made again; one that is whole and whose picture
has not changed is not made again; any other file of its name is somebody else's and stays. When all pictures are done, the journal goes.
"""

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from flashrib.runtime.artifacts.lock import locked
from flashrib.runtime.errors import FlashribError

NAME = ".flashrib-journal{}.jsonl"


class Journal:
    """The journal of one folder; its methods may be called by any thread. `opened` opens one."""

    def __init__(self, path: Path, file: IO[str], begun: set[str], done: dict[str, dict[str, Any]]) -> None:
        self._path, self._file, self._begun, self._done = path, file, begun, done
        self._lock = threading.Lock()
        self._finished = False

    def done(self, source: Path, target: Path) -> tuple[int, int, int, int] | None:
        """Return (width, height, width, height) of picture and result if an earlier run made it from the picture as it is now."""
        entry = self._done.get(self._key(target))
        if entry is None or not target.is_file() or entry["source"] != _state(source):
            return None
        width, height, wider, higher = entry["size"]
        return width, height, wider, higher

    def is_ours(self, target: Path) -> bool:
        """Say whether the result of this name was begun by an earlier run, so that it may be replaced."""
        return self._key(target) in self._begun

    def begin(self, target: Path) -> None:
        """Write down that the result is about to be written; it does not exist, is ours, or may be replaced."""
        self._begun.add(self._key(target))
        self._write({"begun": self._key(target)})

    def finish(self, source: Path, target: Path, size: tuple[int, int, int, int]) -> None:
        """Write down that the result is whole; `size` as `done` returns it."""
        entry = {"done": self._key(target), "source": _state(source), "size": size}
        self._done[self._key(target)] = entry
        self._write(entry)

    def complete(self) -> None:
        """Take notice that nothing is left to do or to repeat: the journal vanishes when it is closed."""
        self._finished = True

    @property
    def is_needed(self) -> bool:
        """Whether a later run has something of it."""
        return bool(self._done) and not self._finished

    def _key(self, target: Path) -> str:
        return os.path.relpath(target, self._path.parent)

    def _write(self, entry: dict[str, Any]) -> None:
        with self._lock, _writing(self._path):
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()  # a killed process loses nothing that the operating system has


@contextlib.contextmanager
def opened(folder: Path, identity: dict[str, Any], part: str = "") -> Iterator[Journal]:
    """Open the journal of a folder for one process.

    Args:
        folder: of the results; it exists.
        identity: whatever decides what the results hold, in JSON's types: model, tile, quality. A journal of another identity is
            begun again, and its results count as somebody else's.
        part: distinguishes processes that share the folder, "-2of4".

    Raises:
        FlashribError: another process writes the same part, or the journal cannot be written.
    """
    path = folder / NAME.format(part)
    head = json.dumps({"flashrib": 1, **identity}, sort_keys=True)
    with locked(path.with_suffix(".lock"), f"{folder}{f' (part {part[1:]})' if part else ''}"):
        try:
            with _writing(path):
                lines = path.read_text("utf-8").splitlines() if path.exists() else []
                if not lines or lines[0] != head:
                    path.write_text(head + "\n", "utf-8")
                    lines = [head]
                file = path.open("a", encoding="utf-8")
            journal = Journal(path, file, *_entries(lines[1:]))
            try:
                yield journal
            finally:
                with _writing(path):
                    try:
                        file.close()
                    finally:
                        if not journal.is_needed:
                            path.unlink(missing_ok=True)
        finally:
            with contextlib.suppress(OSError):
                path.with_suffix(".lock").unlink(missing_ok=True)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Errors name the journal."""
    try:
        yield
    except OSError as error:
        raise FlashribError(f"{path}: cannot be written: {error.strerror or error}") from error


def journal_exists(folder: Path, part: str = "") -> bool:
    """Say whether an earlier run left a journal."""
    return (folder / NAME.format(part)).is_file()


def shard(sources: list[Path], number: int, of: int) -> list[bool]:
    """Say which pictures are those of one machine out of several.

    Args:
        sources: the pictures of all machines.
        number: of this machine, 1..of.
        of: machines.

    Returns:
        True at each picture of this machine. It is decided by the name alone, so that machines agree even if they see the folder at
        different times; the shares are equal within what chance allows.
    """

    def place(source: Path) -> int:
        return int.from_bytes(hashlib.sha256(source.name.encode("utf-8", "surrogateescape")).digest()[:8], "big") % of

    return [place(source) == number - 1 for source in sources]


def _entries(lines: list[str]) -> tuple[set[str], dict[str, dict[str, Any]]]:
    """Read the entries; the last line may have been cut off when the process was killed."""
    begun: set[str] = set()
    done: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("begun"), str):
            begun.add(entry["begun"])
        if isinstance(entry, dict) and isinstance(entry.get("done"), str) and _is_size(entry.get("size")):
            done[entry["done"]] = {"source": None, **entry}
    return begun, done


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(isinstance(side, int) for side in value)


def _state(source: Path) -> list[Any]:
    """What tells a picture from a changed one of the same name."""
    stat = source.stat()
    return [os.path.abspath(source), stat.st_size, stat.st_mtime_ns]
