"""What libtiff says about damaged files: kept off standard error, and heard where Pillow does not pass it on.

Pillow decodes compressed TIFFs with libtiff, which prints its errors to the descriptor 2, past Python, and goes on after some
of them: a fax page with bad code words comes out as if it were whole. libtiff takes a handler in place of the printing
(TIFFSetErrorHandler, TIFFError(3TIFF)); it is found through Pillow's own module, so that it is the copy that Pillow uses.
Where it cannot be found (statically linked), libtiff prints as ever, and nothing else changes.
"""

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

from PIL import _imaging

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
_thread = threading.local()
_handlers: list[object] = []  # called by libtiff for the rest of the process


@contextlib.contextmanager
def libtiff_errors() -> Iterator[list[str]]:
    """Collect what libtiff would print as errors in this thread, as templates such as "%s: Bad code word"; drop warnings.

    What other threads and other libraries print, through libtiff or not, is left alone.
    """
    _install()
    before = getattr(_thread, "errors", None)
    errors: list[str] = []
    _thread.errors = errors
    try:
        yield errors
    finally:
        _thread.errors = before


@functools.cache
def _install() -> None:
    """Put our handlers before those that are there, once."""
    try:
        library = ctypes.CDLL(_imaging.__file__)
        setters = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (AttributeError, OSError, TypeError):
        return
    for setter, keep in zip(setters, (True, False), strict=True):
        setter.argtypes, setter.restype = (ctypes.c_void_p,), ctypes.c_void_p
        _put_before(setter, keep)


def _put_before(setter: Any, keep: bool) -> None:
    before: Callable[..., None] | None = None

    def handle(module: int | None, template: int | None, values: int | None) -> None:
        errors = getattr(_thread, "errors", None)
        if errors is None:
            if before is not None:
                before(module, template, values)
        elif keep:
            errors.append(ctypes.string_at(template).decode("utf-8", "replace") if template else "")

    handler = _Handler(handle)
    _handlers.append(handler)
    address = setter(ctypes.cast(handler, ctypes.c_void_p))
    before = _Handler(address) if address else None
