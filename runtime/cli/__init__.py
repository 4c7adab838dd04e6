"""The command line: one module per command, each a docstring with an example and a thin body over the library.

Results go to standard output; errors (one line each) and progress go to standard error. `parser.EPILOG` lists the exit codes.
This module imports nothing that takes time, so that Ctrl-C is answered from the beginning.
"""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence

from flashrib.runtime import stopping
from flashrib.runtime.sessions import early

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def program() -> int:
    """Run the command line of the process: `main`, where signals are answered soon and closed standard streams are no harm."""
    try:
        stopping.install()
        _open_closed_streams()
        code = main()
    except KeyboardInterrupt:
        code = _interrupted()
    if stopping.received:
        stopping.end()
    if stopping.broken:
        stopping.end(code)
    return code


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; whatever goes wrong is one line on standard error.

    Args:
        argv: arguments without the program's name; None takes those of the process.
    """
    try:
        given = list(sys.argv[1:] if argv is None else argv)
        if argv is None:  # the process is for this command alone
            early.begin(given)
        from flashrib.runtime.cli.parser import build_parser

        arguments = build_parser(given).parse_args(given)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        _abandon_stdout()
        return BROKEN_PIPE
    except Exception as error:
        # A library that was interrupted may say anything, even that it is not installed.
        return _interrupted() if stopping.received else _failed(error)


def _failed(error: Exception) -> int:
    from flashrib.runtime.cli.output import print_error
    from flashrib.runtime.errors import FlashribError

    if os.environ.get("FLASHRIB_DEBUG") == "1":
        traceback.print_exc()
    if isinstance(error, FlashribError):
        print_error(error)
        return error.exit_code
    if isinstance(error, OSError):
        print_error(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error)
        _abandon_stdout()
    elif isinstance(error, MemoryError):
        print_error("out of memory: use a smaller --tile, or leave more memory to this process")
    else:
        print_error(
            f"unexpected {type(error).__name__}: {error}: this is a bug in flashrib; please report this command, and what it"
            " prints with FLASHRIB_DEBUG=1"
        )
    return 1


def _interrupted() -> int:
    if stopping.received:
        stopping.said.append(True)
        stopping.say()
        return stopping.exit_code()
    print("flashrib: interrupted", file=sys.stderr)
    return INTERRUPTED


def _abandon_stdout() -> None:
    """Keep Python from complaining at exit where the rest of the output cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Nowhere(io.TextIOBase):
    """In place of a standard stream that was closed before the program began."""

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def _open_closed_streams() -> None:
    """Keep files that are opened later from taking the numbers 0, 1 and 2, to which libraries print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or _Nowhere()
    sys.stderr = sys.stderr or _Nowhere()
