"""What the writers of PNG and JPEG share: rows come in order, blocks of them are coded on all cores and stored in order."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, Self, TypeVar

from numpy.typing import NDArray

MOST_THREADS = 16

Coded = TypeVar("Coded")


class BlockWriter(ABC, Generic[Coded]):
    """Codes blocks of rows in threads; a context manager, whose end finishes the file.

    Args:
        height: rows of the picture.
        width: columns of the picture.
        channels: samples of a pixel.
        itemsize: bytes of a sample.
        threads: blocks in work at a time, >= 1; None: one per CPU that this process may use, at most `MOST_THREADS`.
    """

    def __init__(self, height: int, width: int, channels: int, itemsize: int, threads: int | None) -> None:
        self._left, self._shape, self._itemsize = height, (width, channels), itemsize
        self._threads = threads or min(MOST_THREADS, available_cpus())
        self._pool = ThreadPoolExecutor(self._threads, "blocks")
        self._pending: deque[Future[Coded]] = deque()

    @abstractmethod
    def write(self, rows: NDArray[Any]) -> None:
        """Take the next rows, (rows, width, channels); they are copied before this returns.

        Raises:
            ValueError: rows of another width, depth or number of channels, or more than the picture has.
            OSError: the file cannot be written.
        """

    def close(self) -> None:
        """Write what is in work and the end of the file.

        Raises:
            ValueError: rows are missing.
            OSError: the file cannot be written.
        """
        try:
            if self._left:
                raise ValueError(f"{self._left} rows are missing")
            self._flush()
            while self._pending:
                self._store(self._pending.popleft().result())
            self._end()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Forget what is in work, after an error."""
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def _count(self, rows: NDArray[Any]) -> None:
        """Refuse rows that do not belong to the picture, and count the others."""
        same = rows.shape[1:] == self._shape and (rows.dtype.kind, rows.dtype.itemsize) == ("u", self._itemsize)
        if not same or len(rows) > self._left:
            raise ValueError(f"rows {rows.shape} of {rows.dtype} for a picture of {self._left} more rows {self._shape}")
        self._left -= len(rows)

    def _submit(self, code: Callable[..., Coded], *arguments: Any) -> None:
        """Code a block in a thread, and store the oldest where enough are in work."""
        self._pending.append(self._pool.submit(code, *arguments))
        while len(self._pending) > 2 * self._threads:
            self._store(self._pending.popleft().result())

    def _flush(self) -> None:  # most writers keep no rows back
        """Submit rows that wait for more."""

    @abstractmethod
    def _store(self, coded: Coded) -> None:
        """Write a block; called in their order."""

    @abstractmethod
    def _end(self) -> None:
        """Write what stands behind the last block."""


def available_cpus() -> int:
    """Return the number of CPUs that this process may use, >= 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
