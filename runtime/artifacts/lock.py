"""A lock between processes: a file that one process at a time holds; the operating system frees it when that process ends."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from flashrib.runtime.errors import FlashribError


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock `path`, a file that is made and stays, within a with statement.

    Args:
        path: the file.
        what: what it protects, for the message.

    Raises:
        FlashribError: another process holds it, or the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise FlashribError(f"{path}: cannot be written: {error.strerror or error}") from error
    try:
        if not _taken(descriptor):
            raise FlashribError(
                f"{what} is being written by another process, which holds {path}: wait until it has ended"
            )
        yield
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]  # of Windows alone
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
