"""Ending the process soon after Ctrl-C or SIGTERM, wherever it is; like errors.py, for every room.

Python's own handlers run between two of its instructions, not while a library computes for seconds. So a thread hears of the
signal as well: it tells what computes to stop, by what was given to `interruptible`, and if the process is still there after
`GRACE_SECONDS` it removes temporary files and folders and ends it.
"""

import contextlib
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

GRACE_SECONDS = 0.5
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

temporary: set[Path] = set()
"""Files and folders that must not be left behind; whoever makes one adds it, and takes it out when it is gone."""

received: list[int] = []
"""Signals that have come."""

said: list[bool] = []
"""Whether the line about it was printed."""

broken: list[str] = []
"""Devices that failed: their libraries end the process with a crash where Python frees what is left of them."""

_raised: list[bool] = []
_callbacks: set[Callable[[], Any]] = set()
_lock = threading.Lock()


@contextlib.contextmanager
def interruptible(stop: Callable[[], Any]) -> Iterator[None]:
    """Call `stop`, from another thread, if the process shall end while the block runs."""
    with _lock:
        _callbacks.add(stop)
    try:
        yield
    finally:
        with _lock:
            _callbacks.discard(stop)


def install() -> None:
    """Take over SIGINT and SIGTERM: KeyboardInterrupt in the main thread, and the end of the process if that does not help."""
    # Where the exception cannot be raised, in a finalizer for instance, it is no news.
    unraisable = sys.unraisablehook
    sys.unraisablehook = lambda args: None if received else unraisable(args)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job
            signal.signal(number, _interrupt)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reading,), name="flashrib-signals", daemon=True).start()


def keep_imported() -> None:
    """Spare the garbage collector what is there now, modules above all, for the rest of the process.

    PyTorch and ONNX bring hundreds of thousands of objects. Each time that Python goes through all of them, it does nothing else for a
    quarter of a second and more, and hears of no signal.
    """
    gc.freeze()


def exit_code() -> int:
    """Return the code that a shell expects after the first signal."""
    return 128 + received[0]


def say() -> None:
    """Say in one line on standard error what happened."""
    with contextlib.suppress(OSError):
        os.write(2, f"flashrib: {WORDS[signal.Signals(received[0])]}\n".encode())


def _interrupt(number: int, _: FrameType | None) -> None:
    if not received:
        received.append(number)
    if not _raised:  # once is enough: the process is ending
        _raised.append(True)
        raise KeyboardInterrupt


def _watch(reading: int) -> None:
    while (content := os.read(reading, 1)) and content[0] not in SIGNALS:
        pass
    if not received:
        received.append(content[0])
    with _lock:
        callbacks = list(_callbacks)
    for stop in callbacks:
        with contextlib.suppress(Exception):
            stop()
    # A process that ends by itself ends this thread with it.
    threading.Event().wait(GRACE_SECONDS)
    end()


def remove(path: Path) -> None:
    """Remove a file or a folder; OSError where that fails."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def end(code: int | None = None) -> None:
    """End the process at once, without what Python and libraries do at its end; nothing temporary is left behind.

    Args:
        code: what it exits with; None: what the signal that came says, and a line about it.
    """
    for child in multiprocessing.active_children():
        with contextlib.suppress(Exception):
            child.terminate()
    for path in list(temporary):
        with contextlib.suppress(OSError):
            remove(path)
    # Each TemporaryDirectory has one; to look for them among all objects would take a second.
    for finalizer in list(getattr(weakref.finalize, "_registry", ())):
        with contextlib.suppress(Exception):
            held = finalizer.peek()
            if held is not None and type(held[0]) is tempfile.TemporaryDirectory:
                held[0].cleanup()
    if code is None and not said:
        say()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(exit_code() if code is None else code)
