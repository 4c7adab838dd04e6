"""Every error that flashrib raises on purpose.

    FlashribError               exit 1   what was wrong, with the value seen, and how to fix it
    ├── UsageError              exit 2   an invalid flag or argument
    ├── PictureError            exit 1   a picture that cannot be read or written
    ├── ModelError              exit 1   a model file that is not what it should be
    │   ├── CheckpointError     exit 1   a PyTorch checkpoint that is not what it should be
    │   ├── SilentModelError    exit 1   an ONNX file that says nothing about itself
    │   └── DamagedWeightsError exit 1   an ONNX file whose weights are not those that it was written with
    ├── SessionError            exit 1   a session that cannot start or failed while running
    │   ├── OutOfMemoryError    exit 1   the tile does not fit; a smaller one may
    │   └── DeviceFailedError   exit 1   a device or a process that is of no use any more
    └── MissingPackageError     exit 1   an optional package is needed and not installed

The message is one line, complete in itself: the command line prints it and nothing else. Errors can be pickled: whoever runs sessions
in other processes gets them back as they were.
This module imports nothing, so that every part of flashrib may use it.
"""


class FlashribError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(FlashribError):
    """An invalid flag or argument."""

    exit_code = 2


class PictureError(FlashribError):
    """A picture that cannot be read or written."""


class ModelError(FlashribError):
    """A model file that is not what it should be."""


class CheckpointError(ModelError):
    """A PyTorch checkpoint that is not what it should be."""


class SilentModelError(ModelError):
    """An ONNX file that says nothing about itself."""


class DamagedWeightsError(ModelError):
    """An ONNX file whose weights are not those that it was written with."""


class SessionError(FlashribError):
    """A session that cannot start, or that failed while running."""


class OutOfMemoryError(SessionError):
    """The tile does not fit into memory; a smaller one may."""


class DeviceFailedError(SessionError):
    """A device of a session failed for good; others of it may go on."""


class MissingPackageError(FlashribError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, purpose: str | None = None, extra: str | None = None) -> None:
        """Say which package is missing.

        Args:
            package: its name; or, alone, the whole message, as every other error takes it (so that the error can be pickled, and
                raised again with the name of a file in front).
            purpose: what needs it.
            extra: the extra of flashrib that brings it.
        """
        super().__init__(
            package
            if purpose is None
            else f"{purpose} needs the package {package!r}, which is not installed: pip install 'flashrib[{extra}]'"
        )
