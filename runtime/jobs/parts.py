"""The folder `<name>.parts` beside a video that is being written: `job.json` says what its segments belong to.

A process may be killed at any moment, so that its files go in an order: the segments, `job.json`, the lock. Only files that have our names
are ever removed: the folder may hold a user's.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from flashrib.runtime.artifacts.files import PREFIX, SUFFIX, write_whole
from flashrib.runtime.artifacts.lock import locked
from flashrib.runtime.errors import FlashribError

_JOB, _LOCK = "job.json", "lock"
_OURS = ("[0-9]*.nut", "[0-9]*.tmp", f"{PREFIX}*{SUFFIX}")


class Parts:
    """The segments of one result.

    Args:
        target: the video that they will be.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(target.name + ".parts")

    def segment(self, number: int) -> Path:
        """Return where segment `number`, from 0, lies once it is whole."""
        return self.folder / f"{number:06}.nut"

    @property
    def joined(self) -> Path:
        """Where the whole video lies before it takes its name."""
        return self.folder / ("joined" + self.target.suffix)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and keep other processes from writing there; if nothing is in it at the end, it goes.

        Raises:
            FlashribError: it cannot be made, or another process writes the same result.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlashribError(f"{self.folder}: cannot be made: {error.strerror or error}") from error
        try:
            with locked(self.folder / _LOCK, str(self.target)):
                try:
                    yield
                finally:
                    if os.name != "nt":  # an open file cannot be removed there
                        self._remove_empty()
        finally:
            if os.name == "nt":
                self._remove_empty()

    def begin(self, identity: str) -> None:
        """Keep the segments of an earlier run of this `identity`; remove others. Call while it is held."""
        job = self.folder / _JOB
        if not (job.is_file() and job.read_text("utf-8", "replace") == identity):
            self._remove_segments()
            write_whole(job, identity.encode())

    def remove(self) -> None:
        """Remove the segments and what says of which work they are. Call while it is held."""
        with contextlib.suppress(OSError):
            self._remove_segments()
            (self.folder / _JOB).unlink(missing_ok=True)

    def remove_finished(self) -> None:
        """Remove what a process left that was killed when it had written the whole result, which exists."""
        try:
            names = self._names()
            job = self.folder / _JOB
            finished = job.stat().st_mtime <= self.target.stat().st_mtime if _JOB in names else names <= {_LOCK}
        except OSError:  # there is no such folder, or it has just gone
            return
        if finished:
            with contextlib.suppress(FlashribError), self.held():
                self.remove()

    def _remove_segments(self) -> None:
        self.joined.unlink(missing_ok=True)
        for pattern in _OURS:
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _remove_empty(self) -> None:
        with contextlib.suppress(OSError):
            if self._names() <= {_LOCK}:
                (self.folder / _LOCK).unlink(missing_ok=True)
                self.folder.rmdir()

    def _names(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}
