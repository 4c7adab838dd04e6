"""Writing files whole or not at all, and their hashes; imports nothing but errors, so that every part of flashrib may use it."""

import contextlib
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from flashrib.runtime import stopping
from flashrib.runtime.errors import FlashribError, ModelError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # Windows has no such module

PREFIX, SUFFIX = ".flashrib-", ".part"

_cleared: set[Path] = set()


@contextlib.contextmanager
def opened_whole(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing; at the end it takes the place of `path`, and where anything goes wrong it vanishes.

    It lies in the same folder. What it holds is on the disk before it takes its name, so that a machine that stops leaves the old file
    or the new one. Through a link the file that it points to is replaced, and a file that is replaced keeps its mode. What killed
    processes left in the folder is removed: such a file is not locked.

    Raises:
        OSError: the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary = _temporary(target.parent)
    stopping.temporary.add(temporary)
    try:
        with open(temporary, "xb") as file, _locked(temporary, needed=False):
            yield file
            file.flush()
            _finish(temporary, target)
            if os.name != "nt":  # still locked, so that nobody takes it for a leftover
                os.replace(temporary, target)
        if os.name == "nt":  # an open file cannot be renamed there
            os.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        stopping.temporary.discard(temporary)


@contextlib.contextmanager
def staging_folder(parent: Path) -> Iterator[Path]:
    """Make a folder in `parent` for files that are checked under their own names before `take_place` moves them; it vanishes at the end.

    What killed processes left is removed, as by `opened_whole`.

    Raises:
        OSError: it cannot be made.
    """
    folder = _temporary(parent)
    stopping.temporary.add(folder)
    try:
        folder.mkdir()
        with _locked(folder, needed=False):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        stopping.temporary.discard(folder)


def take_place(staged: Path, path: Path) -> None:
    """Move a complete file to its name, on the disk and with the mode of the file that it replaces; OSError where that fails."""
    target = Path(os.path.realpath(path))
    _finish(staged, target)
    os.replace(staged, target)


def _temporary(folder: Path) -> Path:
    remove_leftovers(folder)
    return folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"


def _finish(temporary: Path, target: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
    with open(temporary, "rb") as written:
        os.fsync(written.fileno())


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], failure: type[FlashribError] = FlashribError) -> Iterator[Path]:
    """Give the name of a temporary file to write, for libraries that open it themselves; otherwise as `opened_whole`.

    Args:
        path: of the file to write.
        failure: the error for a file that cannot be written.

    Raises:
        FlashribError: of the kind `failure`, the file cannot be written.
    """
    try:
        with opened_whole(path) as file:
            yield Path(file.name)
    except OSError as error:
        raise failure(f"{path}: cannot be written: {error.strerror or error}") from error


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files and folders of processes that were killed, once per folder and process."""
    if fcntl is None or folder in _cleared:
        return
    _cleared.add(folder)
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
            with contextlib.suppress(OSError), _locked(path, needed=True):
                stopping.remove(path)


@contextlib.contextmanager
def _locked(path: Path, needed: bool) -> Iterator[None]:
    """Hold the lock of a file or folder itself; OSError if it is `needed` and cannot be had."""
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            descriptor = os.open(path, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # another process has it, or a file system without locks
                if needed:
                    raise
        yield


def write_whole(path: str | os.PathLike[str], content: bytes, failure: type[FlashribError] = FlashribError) -> None:
    """Write a file, whole or not at all; see `replacing`."""
    with replacing(path, failure) as temporary:
        temporary.write_bytes(content)


def sha256_of(*paths: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, or of several one after the other, in hexadecimal.

    Raises:
        ModelError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()
