"""Stages that work at the same time: items are made ahead in a thread, or handed on to one, a few at a time."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from flashrib.runtime.errors import FlashribError

AHEAD = 4
"""Items that wait between two stages."""

_POLL = 0.2  # seconds after which a stage that waits looks whether the other has ended
_END = object()
_STOP = object()

T = TypeVar("T")


class Ahead(Generic[T]):
    """Takes items from an iterator in a thread of its own, some ahead; a context manager that gives the iterator to read from."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._queue: queue.Queue[Any] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._read()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _read(self) -> Iterator[T]:
        while (item := self._queue.get()) is not _END:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            for item in self._items:
                self._put(item)
                if self._stopped.is_set():
                    return
            self._put(_END)
        except BaseException as error:  # raised where the item is waited for
            self._put(error)

    def _put(self, item: Any) -> None:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return


class Feed(Generic[T]):
    """Hands items to a stage that iterates over it in another thread.

    Args:
        ahead: items that may wait.

    Attributes:
        stage: what that thread will return; set once it is started. An error of it is raised by whoever puts.
    """

    def __init__(self, ahead: int = AHEAD) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(ahead)
        self.stage: Future[Any] | None = None

    def put(self, item: T) -> None:
        """Hand an item on; waits while there are enough."""
        self._put(item)

    def end(self) -> None:
        """Say that there are no more."""
        self._put(_END)

    def stop(self) -> None:
        """Say that something failed: the stage ends with an error, and what waits is forgotten."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put(_STOP)  # there is room: nobody else puts

    def __iter__(self) -> Iterator[T]:
        while (item := self._queue.get()) is not _END:
            if item is _STOP:
                raise FlashribError("stopped")
            yield item

    def _put(self, item: Any) -> None:
        while True:
            try:
                self._queue.put(item, timeout=_POLL)
            except queue.Full:
                if self.stage is not None and self.stage.done():
                    self.stage.result()
            else:
                return
