"""Writing files whole or not at all, and their hashes; imports nothing but errors, so that every part of flashrib may use it."""

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from flashrib.runtime.errors import FlashribError, ModelError


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], failure: type[FlashribError] = FlashribError) -> Iterator[Path]:
    """Give the name of a temporary file to write; at the end it takes the place of `path`, and where anything goes wrong it vanishes.

    It lies in the same folder. What it holds is on the disk before it takes its name, so that a machine that stops leaves the old file
    or the new one. Through a link the file that it points to is replaced, and a file that is replaced keeps its mode.

    Args:
        path: of the file to write.
        failure: the error for a file that cannot be written.

    Raises:
        FlashribError: of the kind `failure`, the file cannot be written.
    """
    target = Path(path).resolve()
    temporary = target.with_name(f".flashrib-{secrets.token_hex(8)}.part")
    try:
        yield temporary
        with contextlib.suppress(FileNotFoundError):
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise failure(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


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
