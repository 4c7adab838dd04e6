"""Writing files whole or not at all, and their hashes."""

import hashlib
import os
import tempfile
from pathlib import Path

from flashrib.runtime.errors import FlashribError, ModelError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder and give it its name when it is complete.

    Raises:
        FlashribError: it cannot be written.
    """
    temporary: str | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
            temporary = file.name
            file.write(content)
        os.chmod(temporary, 0o644)  # a temporary file is private
        os.replace(temporary, path)
    except OSError as error:
        raise FlashribError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


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
