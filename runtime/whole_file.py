"""Files that appear whole or not at all; like errors.py, for every room."""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".flashrib-", ".part"

_looked_at: set[Path] = set()


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `path` that takes its name at the end, or vanishes if anything goes wrong.

    Through a link the file that it points to is replaced, not the link. A file that is replaced keeps its permissions; a new one
    gets those that the umask allows. The content is on the disk before the name is. What killed processes left in the folder is
    removed: such a file is not locked.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(path).resolve()
    remove_leftovers(target.parent)
    temporary = target.with_name(f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}")
    try:
        with open(temporary, "xb") as file:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield file
            file.flush()
            with contextlib.suppress(FileNotFoundError):
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
            os.fsync(file.fileno())
            if os.name != "nt":
                os.replace(temporary, target)
        if os.name == "nt":  # an open file cannot be renamed there
            os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that were killed, once per folder and process."""
    if fcntl is None or folder in _looked_at:
        return
    _looked_at.add(folder)
    with contextlib.suppress(OSError):
        for path in folder.glob(f"{PREFIX}*{SUFFIX}"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
