"""The parser of the command line."""

import argparse
import importlib
import importlib.metadata
import inspect
from collections.abc import Sequence
from typing import Any, NoReturn

from flashrib.runtime.errors import UsageError

DESCRIPTION = "Upscales pictures with super-resolution transformers, on the CPU by default."

EPILOG = """\
exit codes:
  0    everything was done
  1    something failed: a picture, a model, memory (one line each on stderr)
  2    the command line is invalid
  130  interrupted
  141  whoever read the output stopped reading

FLASHRIB_DEBUG=1 in the environment shows the traceback of an error."""

COMMANDS = ("upscale", "video", "classify", "info", "evaluate", "train", "export", "calibrate", "build", "verify")


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as UsageError, and shows descriptions as they are written."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see: {self.prog} --help)")


class CommandParser(Parser):
    """Parser of one command; the hint of an error leads to its help rather than to the general one."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]  # argparse's overloads
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser; what it parses has the function of the command as `.run`.

    Args:
        argv: what will be parsed: where it begins with a command, the others are not loaded, which takes time.
    """
    parser = Parser(prog="flashrib", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"flashrib {_version()}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, dest="command", parser_class=CommandParser
    )
    for name in argv[:1] if argv and argv[0] in COMMANDS else COMMANDS:
        module = importlib.import_module(f"flashrib.runtime.cli.{name}")
        description = inspect.cleandoc(module.run.__doc__ or "")
        command = commands.add_parser(name, description=description, help=description.partition("\n")[0])
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def _version() -> str:
    try:
        return importlib.metadata.version("flashrib")
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"
