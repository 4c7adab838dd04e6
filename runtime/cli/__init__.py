"""The command line: one module per command, each a docstring with an example and a thin body over the library.

Results go to standard output; errors (one line each) and progress go to standard error. `parser.EPILOG` lists the exit codes.
"""

import os
import sys
import traceback
from collections.abc import Sequence

from flashrib.runtime.cli.output import print_error
from flashrib.runtime.cli.parser import build_parser
from flashrib.runtime.errors import FlashribError

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; whatever goes wrong is one line on standard error.

    Args:
        argv: arguments without the program's name; None takes those of the process.
    """
    try:
        arguments = build_parser().parse_args(argv)
        code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except FlashribError as error:
        _show_traceback()
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        print("flashrib: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _abandon_stdout()
        return BROKEN_PIPE
    except OSError as error:
        _show_traceback()
        print_error(f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error)
        _abandon_stdout()
        return 1
    except MemoryError:
        _show_traceback()
        print_error("out of memory: use a smaller --tile, or leave more memory to this process")
        return 1
    except Exception as error:
        _show_traceback()
        print_error(
            f"unexpected {type(error).__name__}: {error}: this is a bug in flashrib; please report this command, and what it"
            " prints with FLASHRIB_DEBUG=1"
        )
        return 1


def _show_traceback() -> None:
    if os.environ.get("FLASHRIB_DEBUG") == "1":
        traceback.print_exc()


def _abandon_stdout() -> None:
    """Keep Python from complaining at exit where the rest of the output cannot be written."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
