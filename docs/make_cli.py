"""Writes docs/cli.md from the help of the commands:

python docs/make_cli.py > docs/cli.md
"""

import os
from unittest import mock

from flashrib.runtime.cli.parser import COMMANDS, build_parser

HEAD = """\
# Command line

Everything below is what `flashrib --help` and `flashrib COMMAND --help` print; `python docs/make_cli.py > docs/cli.md` writes it.

Results go to standard output. Errors, one line each, and the progress bar go to standard error; the bar shows on a terminal alone.
"""


def render() -> str:
    """Return the whole page."""
    # argparse fits its text into the terminal, and Python 3.14 colours it.
    with mock.patch.dict(os.environ, {"COLUMNS": "110", "NO_COLOR": "1"}):
        parser = build_parser()
        subparsers = parser._subparsers
        assert subparsers is not None
        choices = subparsers._group_actions[0].choices
        assert isinstance(choices, dict)
        names = list(COMMANDS)
        helps = [("flashrib", parser.format_help())]
        helps += [(f"flashrib {name}", choices[name].format_help()) for name in names]
    return HEAD + "".join(f"\n## {title}\n\n```text\n{text}```\n" for title, text in helps)


if __name__ == "__main__":
    print(render(), end="")
