"""Every error that flashrib raises on purpose.

    FlashribError               exit 1   what was wrong, with the value seen, and how to mend it
    ├── UsageError              exit 2   a flag or argument that cannot be meant
    ├── PictureError            exit 1   a picture that cannot be read or written
    ├── ModelError              exit 1   a model file that is not what it should be
    │   └── CheckpointError     exit 1   a PyTorch checkpoint that is not what it should be
    ├── SessionError            exit 1   a session that cannot start or failed while running
    │   └── OutOfMemoryError    exit 1   the tile does not fit; a smaller one may
    └── MissingPackageError     exit 1   an optional package is needed and not installed

The message is one line, complete in itself: the command line prints it and nothing else.
This module imports nothing, so that every part of flashrib may use it.
"""


class FlashribError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 1


class UsageError(FlashribError):
    """A flag or an argument that cannot be meant."""

    exit_code = 2


class PictureError(FlashribError):
    """A picture that cannot be read or written."""


class ModelError(FlashribError):
    """A model file that is not what it should be."""


class CheckpointError(ModelError):
    """A PyTorch checkpoint that is not what it should be."""


class SessionError(FlashribError):
    """A session that cannot start, or that failed while running."""


class OutOfMemoryError(SessionError):
    """The tile does not fit into memory; a smaller one may."""


class MissingPackageError(FlashribError):
    """An optional package is needed and not installed."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed: pip install 'flashrib[{extra}]'"
        )
