"""The two flavours of TensorRT and how their Python packages are loaded; used where engines are built and where they run.

rtx        TensorRT-RTX: built without a GPU, runs on GeForce and RTX cards
tensorrt   TensorRT 10.9 or later, 11: built on the GPU that it runs on, data centre and Jetson
"""

import dataclasses
import importlib
from typing import Any

from flashrib.runtime.errors import MissingPackageError, SessionError, UsageError

_SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


@dataclasses.dataclass(frozen=True)
class Flavour:
    """A flavour of TensorRT.

    Attributes:
        name: "rtx" or "tensorrt", also the extra of flashrib that installs it.
        product: its name in messages.
        modules: Python modules that hold its API, the first that is installed is taken.
        oldest: oldest version that flashrib is written for.
        attention: oldest version that has a layer for ONNX's Attention.
    """

    name: str
    product: str
    modules: tuple[str, ...]
    oldest: tuple[int, ...]
    attention: tuple[int, ...]


FLAVOURS = {
    # The wheel `tensorrt-rtx` only renames the module of the bindings' wheel.
    "rtx": Flavour("rtx", "TensorRT-RTX", ("tensorrt_rtx", "tensorrt_rtx_bindings"), (1, 2), (1, 2)),
    # https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/release-notes-10/10.14.1.html: IAttention is new in it.
    "tensorrt": Flavour("tensorrt", "TensorRT", ("tensorrt",), (10, 9), (10, 14)),
}


def flavour_named(name: str) -> Flavour:
    """Return the flavour `name`.

    Raises:
        UsageError: no such flavour.
    """
    if name not in FLAVOURS:
        raise UsageError(f"flavour {name!r} is not one of {', '.join(FLAVOURS)}")
    return FLAVOURS[name]


def load_flavour(flavour: Flavour, purpose: str) -> Any:
    """Return the Python module of a flavour.

    Args:
        flavour: which.
        purpose: what needs it, for the error message.

    Raises:
        MissingPackageError: it is not installed.
        SessionError: it is installed and cannot be loaded, or is too old.
    """
    for name in flavour.modules:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise SessionError(f"{flavour.product} is installed, but cannot be loaded: {error}") from error
            continue
        except (ImportError, OSError) as error:
            raise SessionError(f"{flavour.product} is installed, but cannot be loaded: {error}") from error
        if version_numbers(module.__version__) < flavour.oldest:
            oldest = ".".join(map(str, flavour.oldest))
            raise SessionError(f"{flavour.product} {module.__version__} is too old: install {oldest} or later")
        return module
    raise MissingPackageError(flavour.modules[0], purpose, flavour.name)


def version_numbers(version: str) -> tuple[int, ...]:
    """Return "10.13.2.6" as (10, 13, 2, 6); what follows the first part that is no number is left out."""
    numbers = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


def collecting_logger(trt: Any, least: str = "ERROR") -> Any:
    """Return a logger for TensorRT that prints nothing and keeps (severity, text) in its list `messages`.

    Args:
        trt: module of a flavour.
        least: least severe kind of message that is kept, "INTERNAL_ERROR", "ERROR", "WARNING", "INFO" or "VERBOSE".
    """
    kept = set(_SEVERITIES[: _SEVERITIES.index(least) + 1])

    class Logger(trt.ILogger):  # type: ignore[misc]  # the module is only known at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, text: str) -> None:
            if severity.name in kept:
                self.messages.append((severity.name, text))

    return Logger()


def first_error(messages: list[tuple[str, str]]) -> str:
    """Return what went wrong first, in one line: later errors mostly follow from it."""
    errors = [text for severity, text in messages if severity in ("INTERNAL_ERROR", "ERROR")]
    return " ".join(errors[0].split()) if errors else "it does not say why"
